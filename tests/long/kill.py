# SPDX-License-Identifier: MIT
"""crashload (tests/model) at work, the daemon killed, fsck, mount, and crashload looks for what it was promised."""
import re
import shutil

from fs import *

T, M = os.environ['T'], os.environ['M']
SEED, KILLS = int(os.environ['SEED']), int(os.environ['KILLS'])
# Each run brings workers of its own, and all that there ever were are verified: now and then it begins anew.
RUNS = 20


def one(n, r):
    """Kill number n. What crashload counted: intents, acknowledgements, of all runs in this directory."""
    work, state = f'{M}/work{n // RUNS}', f'{T}/state{n // RUNS}'
    os.makedirs(work, exist_ok=True)
    with opened(M, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)
    size = os.path.getsize(state) if exists(state) else 0
    run = subprocess.Popen(['crashload', 'run', work, state, f'--seed={SEED + n}', '--procs=3', '--seconds=60', '--no-syncfs'],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    # Not before it works; then at any time.
    until(lambda: run.poll() is not None or (exists(state) and os.path.getsize(state) > size + 4096))
    assert run.poll() is None, f'kill {n}: {run.stdout.read()}'
    time.sleep(r.random() * 0.8)
    pid = kill_daemon()
    run.communicate()
    mount_after(pid)
    done = subprocess.run(['crashload', 'verify', work, state], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f'kill {n}: {done.stdout}{done.stderr}'
    counts = re.search(r'(\d+) intents, (\d+) acknowledgements', done.stdout)
    return [int(c) for c in counts.groups()]


r = random.Random(SEED)
intents = acks = 0
for k in range(KILLS):
    counted = one(k, r)
    if (k + 1) % RUNS == 0 or k + 1 == KILLS:
        intents += counted[0]
        acks += counted[1]
        os.chdir(T)
        shutil.rmtree(f'{M}/work{k // RUNS}')
        os.chdir(M)
print(f'{KILLS} kills, seed {SEED}: {intents} intents, {acks} acknowledgements, 0 problems', flush=True)
