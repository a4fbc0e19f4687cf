"""The AWS CLI, kept warm: most of the time of a command goes into the start of Python, and the runbook has hundreds of them.

Run by the CLI's own interpreter as `warm_aws.py SOCKET`: it forks for each command, which then is the CLI's own main with the caller's
arguments, environment, folder and open files.  CLIENT is the command `aws` of the callers.
Only version 1 is a Python package; another one is called as it is.
"""

import array
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

SERVICES = ["cloudwatch", "dynamodb", "iam", "kms", "lambda", "logs", "secretsmanager", "sqs", "ssm", "sts"]
MESSAGE_BYTES_MAX = 1 << 20

CLIENT = '''#!{python} -SE
import array, json, os, socket, sys
named = [int(part.rsplit("/", 1)[1]) for part in " ".join(sys.argv[1:]).replace("fileb://", " ").replace("file://", " ").split() if part.startswith("/dev/fd/")]
fds = [0, 1, 2, *named]
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.connect({path!r})
message = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), fds]).encode()
link.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
answer = link.recv(16)
sys.exit(int(answer) if answer else 70)
'''


def interpreter():
    """The Python that has the installed AWS CLI as a package; None where it is none."""
    program = shutil.which("aws")
    if "pyenv" in program and shutil.which("pyenv"):
        program = subprocess.run(["pyenv", "which", "aws"], capture_output=True, text=True).stdout.strip() or program
    with open(program, "rb") as file:
        first = file.readline()
    if not first.startswith(b"#!") or b"python" not in first:
        return None
    python = first[2:].decode().strip()
    found = subprocess.run([*python.split(), "-c", "import awscli.clidriver"], capture_output=True)
    return python.split() if found.returncode == 0 else None


def start(folder):
    """The server and the path of its command `aws`; the CLI itself where it cannot be kept warm."""
    python = interpreter()
    if python is None:
        return None, shutil.which("aws")
    path = str(folder / "aws.socket")
    process = subprocess.Popen(
        [*python, "-B", __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "AWS_CONFIG_FILE": os.devnull}
    )
    process.stdout.readline()
    client = folder / "warm-aws"
    client.write_text(CLIENT.format(python=sys.executable, path=path))
    client.chmod(0o755)
    return process, client


def _command(link, driver):
    message, ancillary, _, _ = link.recvmsg(MESSAGE_BYTES_MAX, socket.CMSG_SPACE(64 * array.array("i").itemsize))
    arguments, environment, folder, numbers = json.loads(message)
    received = array.array("i")
    received.frombytes(ancillary[0][2])
    # Out of the way first: a number that is asked for may be one that another came as.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd in received]
    for fd, number in zip(moved, numbers):
        os.dup2(fd, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, "r"), os.fdopen(1, "w"), os.fdopen(2, "w")
    try:
        status = driver.main(arguments)
    except SystemExit as error:
        status = error.code or 0
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    return status


def serve(path):
    import awscli.clidriver

    driver = awscli.clidriver.create_clidriver()
    loader = driver.session.get_component("data_loader")
    for service in SERVICES:
        loader.load_service_model(service, "service-2")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # It ends with whoever started it.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(path)
    server.listen(64)
    print("ready", flush=True)
    while True:
        link, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            status = 70
            try:
                status = _command(link, driver)
            finally:
                link.send(str(status).encode())
                os._exit(0)
        link.close()


if __name__ == "__main__":
    serve(sys.argv[1])
