"""Answers that people really write: wrong ones, with words of the message that they must get, and right ones.

A module holds ``WRONG`` and ``RIGHT``: the name of the check to a list of answers.
"""
