"""A live view of a class, for learners who share: ../../README.md says what it shows and to whom.

report.py is what may be shared, sharing.py the learner's side, view.py and service.py the teacher's.
"""
