"""nbgrader's settings. `make assignment` puts a copy into the class's folder, once: that one is yours to change."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from grading import use

c = get_config()  # noqa: F821

# The name of the course: part of the exchange folder's paths, if you use one (see GRADING.md).
c.CourseDirectory.course_id = "adapters"
# c.Exchange.root = "/srv/nbgrader/exchange"

# For `nbgrader zip_collect`: files called ann_01_the_bottleneck.ipynb, where ann is the learner.
c.FileNameCollectorPlugin.named_regexp = r".*[/\\](?P<student_id>[^/\\]+?)_(?P<file_id>\d\d_[a-z_]+)"

# Seconds for one cell. A check stops a loop without end itself, and what the exercises need is quick.
c.Execute.timeout = 60
c.Execute.extra_arguments = ["--IPKernelApp.log_level=40"]  # it would warn about loopback connections

# Where a hand-in's kernel runs, without a network and with no file of the class but its own: in a container of "podman"
# or "docker", in "namespaces", in "none" of them, or with "auto" in the first that works.
# c.ExecuteWhatIsGraded.box = "auto"

# What stands where the solution was, as in the lessons.
c.ClearSolutions.code_stub = {"python": "# your code here\nraise NotImplementedError"}

use(c)  # how hand-ins are repaired and executed
