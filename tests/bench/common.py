# SPDX-License-Identifier: MIT
"""What the benchmarks that measure whole programs share."""
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import threading
import time

MIB = 1 << 20


class Trouble(Exception):
    """It makes no sense to go on."""


def note(text):
    print(f'bench: {text}', file=sys.stderr, flush=True)


def digest(path):
    h = hashlib.sha256()
    with open(path, 'rb') as f:
        while data := f.read(MIB):
            h.update(data)
    return h.hexdigest()


def sample_peak(pid, peak):
    """VmHWM while the process lives; rusage would count this script's own memory, from before exec."""
    with contextlib.suppress(OSError, ProcessLookupError, StopIteration):
        while True:
            peak[0] = daemon_peak(pid)
            time.sleep(0.02)


def run_measured(argv, log):
    """Runs to the end: wall and CPU seconds, peak memory (0 if it was too short to be seen)."""
    begin = time.monotonic()
    child = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    peak = [0]
    sampler = threading.Thread(target=sample_peak, args=(child.pid, peak))
    sampler.start()
    # Not reaped before the sampler is done, so that the number stays its own.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    wall = time.monotonic() - begin
    sampler.join()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Trouble(f'{" ".join(argv)}: status {child.returncode}; see {log.name}')
    return {'wall': wall, 'cpu': usage.ru_utime + usage.ru_stime, 'rss': peak[0]}


def daemon_cpu(pid):
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def daemon_peak(pid):
    with open(f'/proc/{pid}/status') as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith('VmHWM:'))


def median_of(runs, field):
    values = [r[field] for r in runs]
    return (statistics.median(values), min(values), max(values)) if values else None


def show(figure, scale, digits):
    if not figure:
        return '–'
    mid, low, high = (f'{x / scale:.{digits}f}' for x in figure)
    return mid if low == high else f'{mid} ({low}–{high})'
