"""Type docs/quickstart.md to the letter: python3 .ci/quick_start.py SOURCE WORK.

Its first block in SOURCE, a copy of what is installed, with a network; this makes the environment
SOURCE/augkit-env. All others in WORK/place, where a folder of 300 synthetic images lies, on two
cores and with every socket closed. From the first command to the last it may take ten minutes.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "quickstart.md"
MINUTES = 10
IMAGES = "from augkit.testing import write_phantoms; write_phantoms('my-images', 100, {})".format(
    "height=300, width=360, difficulty=0.3, variety=1"
)
NO_NAMESPACE = '''
import socket, sys

def refuse(event, arguments):
    """Pipes between own processes are sockets too, and pass."""
    if event in {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}:
        if arguments[0].family != getattr(socket, "AF_UNIX", None):
            raise OSError(f"no network: {event}")
    elif event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}:
        raise OSError(f"no network: {event}")

sys.addaudithook(refuse)
'''
"""For where a process cannot be given a network of its own."""


def main() -> None:
    """Type the page; exit with a message if something fails, or takes too long."""
    source, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    install, *lines = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    began = time.monotonic()
    type_in(install, source)
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    place, activate = work / "place", f"source {source}/augkit-env/bin/activate\n"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    type_in(f'{activate}python -c "{IMAGES}"', place)
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if cores:
        os.sched_setaffinity(0, cores)
    began, said = time.monotonic(), ""
    for block in lines:
        step = time.monotonic()
        said += type_in(activate + block, place, closed=sockets_closed(work))
        print(
            f"{time.monotonic() - step:5.0f} s  {' && '.join(block.split(chr(10))[:-1])}",
            flush=True,
        )
    took = time.monotonic() - began
    if not re.search(r"^(cannot tell whether )?traditional (helps|hurts)", said, re.M):
        sys.exit(f"no verdict was given:\n{said}")
    if not (place / "report" / "report.html").is_file():
        sys.exit("no report was written")
    if took > MINUTES * 60:
        sys.exit(f"from the first command to the report it took {took:.0f} s")
    print(f"from the first command to the report: {took:.0f} s, {len(cores) or 'all'} cores")


def sockets_closed(work: Path) -> tuple[list[str], dict[str, str]]:
    """Return a prefix of commands, and variables, with which no process reaches a network."""
    prefix = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"], check=False).returncode:
        return prefix, {}
    (work / "closed").mkdir(exist_ok=True)
    (work / "closed" / "sitecustomize.py").write_text(NO_NAMESPACE)
    return [], {"PYTHONPATH": str(work / "closed")}


def type_in(
    lines: str, folder: Path, *, closed: tuple[list[str], dict[str, str]] = ([], {})
) -> str:
    """Run lines as a shell does, up to the first that fails; return what was printed."""
    prefix, variables = closed
    plain = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "AUGKIT", "VIRTUAL"))
    }
    done = subprocess.run(
        [*prefix, "bash", "-e", "-c", lines],
        cwd=folder,
        env=plain | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"this fails:\n{lines}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
