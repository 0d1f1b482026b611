"""Answers that people really write: for each exercise wrong ones, with words of the message they must get, and right ones.

A module holds ``WRONG`` and ``RIGHT``: the name of the check to a list of answers.
"""
