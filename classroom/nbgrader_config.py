"""nbgrader's settings. `make assignment` puts a copy into the class's folder, once: that one is yours to change."""

import sys
from pathlib import Path

from nbgrader.converters import Autograde
from nbgrader.preprocessors import Execute, OverwriteCells

sys.path.insert(0, str(Path(__file__).parent))
from grading import ExecuteWhatIsGraded, PutBackWhatIsMissing

c = get_config()  # noqa: F821

# The name of the course: part of the exchange folder's paths, if you use one (see GRADING.md).
c.CourseDirectory.course_id = "adapters"
# c.Exchange.root = "/srv/nbgrader/exchange"

# For `nbgrader zip_collect`: files called ann_01_the_bottleneck.ipynb, where ann is the learner.
c.FileNameCollectorPlugin.named_regexp = r".*[/\\](?P<student_id>[^/\\]+?)_(?P<file_id>\d\d_[a-z_]+)"

# Seconds for one cell. A check stops a loop without end itself, and what the exercises need is quick.
c.Execute.timeout = 60
c.Execute.extra_arguments = ["--IPKernelApp.log_level=40"]  # it would warn about loopback connections

# A test that a learner has deleted is put back.
c.OverwriteCells.add_missing_cells = True

# What stands where the solution was, as in the lessons.
c.ClearSolutions.code_stub = {"python": "# your code here\nraise NotImplementedError"}

# Two of nbgrader's steps are replaced by those in grading.py.
c.Autograde.sanitize_preprocessors = [
    PutBackWhatIsMissing if step is OverwriteCells else step
    for step in Autograde.sanitize_preprocessors.default_args[0]
]
c.Autograde.autograde_preprocessors = [
    ExecuteWhatIsGraded if step is Execute else step for step in Autograde.autograde_preprocessors.default_args[0]
]
