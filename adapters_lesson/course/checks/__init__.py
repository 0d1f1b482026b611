"""What looks at a learner's answer and says what is wrong with it: one module a lesson, one function an exercise."""

from adapters_lesson.course.checks.check import Report

__all__ = ["Report"]
