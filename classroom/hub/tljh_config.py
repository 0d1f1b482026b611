"""The Littlest JupyterHub: what the course adds to its configuration. Not tried; README.md beside this file says how.

Copy or link it into /opt/tljh/config/jupyterhub_config.d, with the course's folder in COURSE.
"""

from pathlib import Path

c = get_config()  # noqa: F821, JupyterHub defines it
COURSE = Path("/srv/adapters-lesson")

c.Spawner.cmd = ["/opt/tljh/user/bin/python", str(COURSE / "classroom" / "hub" / "singleuser.py")]
c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.Spawner.environment = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "ADAPTERS_LESSON_LIVE": "http://127.0.0.1:10101/services/live/",
}
c.Spawner.args = ["--LabApp.extension_manager=readonly", "--MappingKernelManager.cull_idle_timeout=3600"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 300
c.JupyterHub.services.append(  # the live view; README.md beside this file says what it shows
    {
        "name": "live",
        "url": "http://127.0.0.1:10101",
        "command": ["/opt/tljh/user/bin/python", "-m", "adapters_lesson_live.service"],
        "environment": {"PYTHONPATH": str(COURSE / "classroom" / "hub" / "live")},
        "oauth_no_confirm": True,
    }
)
