"""Linux, macOS and Windows: letters that a console lacks, calls that one of them has not, files read as UTF-8."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from explore.cli import main

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "explore").rglob("*.py"))
CONSOLES = {
    "cp1252": {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"},
    "cp437": {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp437"},
    "posix": {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"},
}
# Calls that one system lacks, by module; `explore/system.py` has them behind a question.
POSIX = {
    "os": set(
        [
            "EX_OK",
            "O_NONBLOCK",
            "chown",
            "fchown",
            "fork",
            "forkpty",
            "getegid",
            "geteuid",
            "getgid",
            "getloadavg",
            "getpgid",
            "getpgrp",
            "getppid",
            "getsid",
            "getuid",
            "initgroups",
            "kill",
            "killpg",
            "mkfifo",
            "nice",
            "pipe2",
            "posix_spawn",
            "sched_getaffinity",
            "sched_setaffinity",
            "setpgid",
            "setpriority",
            "setsid",
            "setuid",
            "statvfs",
            "sysconf",
            "sysconf_names",
            "ttyname",
            "uname",
            "wait",
            "wait3",
            "wait4",
            "waitid",
            "WEXITSTATUS",
            "WNOHANG",
        ]
    ),
    "signal": set(
        [
            "SIGALRM",
            "SIGCHLD",
            "SIGCONT",
            "SIGHUP",
            "SIGKILL",
            "SIGPIPE",
            "SIGQUIT",
            "SIGSTOP",
            "SIGTSTP",
            "SIGUSR1",
            "SIGUSR2",
            "alarm",
            "pause",
            "pthread_kill",
            "pthread_sigmask",
            "set_wakeup_fd",
            "setitimer",
            "sigpending",
            "sigwait",
        ]
    ),
    "time": {"tzset", "pthread_getcpuclockid"},
}
MODULES = {
    "fcntl",
    "grp",
    "msvcrt",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
    "tty",
    "winreg",
}


def lacking(tree: ast.AST) -> list[str]:
    """What a file uses that one of the systems lacks."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"{node.value.id}.{node.attr}"] if node.attr in POSIX.get(node.value.id, ()) else []
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            bad = POSIX.get(node.module or "", set())
            found += [f"{node.module}.{alias.name}" for alias in node.names if alias.name in bad]
            found += [str(node.module)] if (node.module or "").split(".")[0] in MODULES else []
        elif isinstance(node, ast.keyword) and node.arg in ("preexec_fn", "start_new_session", "close_fds"):
            found.append(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [node.value] if node.value.startswith(("/proc", "/dev/", "/tmp")) or node.value == "fork" else []
    return found


def test_only_one_file_calls_what_a_system_lacks():
    own = ROOT / "explore" / "system.py"
    assert {"os.kill", "os.geteuid", "signal.SIGKILL", "fcntl", "msvcrt"} <= set(lacking(ast.parse(own.read_text())))
    wrong = {str(path.relative_to(ROOT)): found for path in SOURCES if path != own and (found := lacking(_tree(path)))}
    assert wrong == {}


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def _unsaid(node: ast.AST) -> str | None:
    """A text file that is opened in the system's own encoding, which Windows has another one of."""
    if not isinstance(node, ast.Call):
        return None
    words = {word.arg for word in node.keywords}
    if (isinstance(node.func, ast.Name) and node.func.id == "open") or ast.unparse(node.func) == "os.fdopen":
        mode = next((ast.unparse(each) for each in node.args[1:2]), "'r'")
        return None if "encoding" in words or "b" in mode or mode == "mode" else ast.unparse(node)
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text"):
        said = "encoding" in words or len(node.args) > (node.func.attr == "write_text")
        return None if said else ast.unparse(node)
    return None


def test_texts_are_read_and_written_as_utf_8():
    """Or hold ASCII alone, as JSON does; `serialization.write_text` writes UTF-8."""
    wrong = {f"{path.name}: {text}" for path in SOURCES for node in ast.walk(_tree(path)) if (text := _unsaid(node))}
    assert {text for text in wrong if "json" not in text and "/proc" not in text} == set()


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_commands_print_on_a_console_that_lacks_letters(encoding, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert [main(words.split()) for words in ("runs", "doctor", "jobs", "train --eps 8")] == [0, 0, 0, 2]
    if encoding == "cp1252":
        assert main(["train", "--smoke"]) == 0
    print("ε = 4/255: 1 ± 2 → −3 ✓ ✕ ○ · –")
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    assert "? = " not in out and "demo/clae" in out and "\n+ Python " in out
    assert "= 4/255: 1 " in out and err.startswith("error: ") and "Traceback" not in err


@pytest.mark.parametrize("variables", CONSOLES.values(), ids=CONSOLES)
def test_the_command_line_starts_on_a_console_that_lacks_letters(variables, tmp_path):
    """A new process, as a user starts it, that Python gives its console."""
    code = f"""from explore.cli import main
main(["lessons", {str(tmp_path / "lessons")!r}])
print("\\u03b5 = 4/255 \\u2192")
main(["train", "--eps", "\\u03b5"])
main(["--help"])"""
    env = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, cwd=ROOT)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert b" = 4/255 ->" in done.stdout and b"usage: " in done.stdout and done.stderr.startswith(b"error: ")
