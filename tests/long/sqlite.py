# SPDX-License-Identifier: MIT
"""Transactions on SQLite databases whose filesystem dies, by one process for each journal mode."""
import sqlite3

from fs import *

MODES = ('delete', 'wal', 'truncate')
M = os.environ['M']
SEED = int(os.environ['SEED'])


def connect(mode):
    db = sqlite3.connect(f'{M}/{mode}.db', isolation_level=None, timeout=60)
    got = db.execute(f'PRAGMA journal_mode={mode}').fetchone()[0]
    eq(got, mode)
    db.execute('PRAGMA synchronous=FULL')
    db.execute('PRAGMA wal_autocheckpoint=20')
    db.execute('PRAGMA cache_size=-200')
    return db


def prepare(mode):
    db = connect(mode)
    db.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, part INTEGER, body BLOB, sum BLOB)')
    db.execute('CREATE INDEX by_n ON t (n, part)')
    db.execute('CREATE TABLE last (n INTEGER)')
    db.execute('INSERT INTO last VALUES (0)')
    db.close()


def work(mode, seed, say):
    """Transactions until the mount is gone: the number of each that was committed goes into the pipe."""
    r = random.Random(seed)
    db = connect(mode)
    n = db.execute('SELECT n FROM last').fetchone()[0]
    while True:
        n += 1
        db.execute('BEGIN IMMEDIATE')
        for part in range(1 + n % 5):
            body = r.randbytes(r.choice((10, 300, 3000, 20000)))
            db.execute('INSERT INTO t (n, part, body, sum) VALUES (?, ?, ?, ?)', (n, part, body, hashlib.sha1(body).digest()))
        if n % 3 == 0:
            db.execute('DELETE FROM t WHERE n < ?', (n - 60,))
        db.execute('UPDATE last SET n = ?', (n,))
        db.execute('COMMIT')
        os.write(say, struct.pack('=Q', n))
        if n % 97 == 0:
            db.execute('VACUUM')


def worker(mode, seed, say):
    try:
        work(mode, seed, say)
    # What is left when the mount is gone: nothing else may go wrong.
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as e:
        if 'disk I/O error' not in str(e) and 'unable to open' not in str(e) and 'readonly' not in str(e):
            raise


def verify(mode, answered):
    db = connect(mode)
    eq(db.execute('PRAGMA integrity_check').fetchall(), [('ok',)], mode)
    last = db.execute('SELECT n FROM last').fetchone()[0]
    # The one that was under way may have come to its end.
    assert answered <= last <= answered + 1, f'{mode}: the last transaction is {last}, and {answered} was answered'
    rows = db.execute('SELECT n, part, body, sum FROM t ORDER BY n, part').fetchall()
    have = {}
    for n, part, body, want in rows:
        eq(hashlib.sha1(body).digest(), want, mode, n, part)
        have.setdefault(n, []).append(part)
    # As much of each as there was, and none but those that were not deleted.
    begin = max(1, last // 3 * 3 - 60)
    eq(sorted(have), list(range(begin, last + 1)) if last else [], mode)
    for n, parts in have.items():
        eq(parts, list(range(1 + n % 5)), mode, n)
    db.close()
    return last


def main():
    r = random.Random(SEED)
    answered = {m: 0 for m in MODES}
    os.chdir(M)
    for m in MODES:
        prepare(m)
    for kill in range(int(os.environ['KILLS'])):
        pipes, pids = {}, []
        for i, m in enumerate(MODES):
            get, say = os.pipe()
            pids.append(child(worker, m, SEED * 1000 + kill * 10 + i, say, wait=False))
            os.close(say)
            pipes[get] = m
        # Killed after some transactions, at a moment that no transaction knows.
        left, until_kill = set(pipes), sum(answered.values()) + r.randrange(1, 60)
        killed = None
        while left:
            ready = select.select(list(left), [], [], 0.05)[0]
            for fd in ready:
                data = os.read(fd, 65536)
                if not data:
                    left.discard(fd)
                for (n,) in struct.iter_unpack('=Q', data):
                    answered[pipes[fd]] = n
            if not killed and sum(answered.values()) >= until_kill:
                time.sleep(r.random() * 0.02)
                killed = kill_daemon()
        for fd in pipes:
            os.close(fd)
        # Nobody of them is to meet the next mount. The memory that WAL's users share is gone with the old one.
        for m, pid in zip(MODES, pids):
            status = os.waitpid(pid, 0)[1]
            assert status == 0 or (m == 'wal' and status == signal.SIGBUS), f'the worker of {m} ended with {status:#x}'
        assert killed, 'the workers ended before the daemon was killed'
        mount_after(killed)
        for m in MODES:
            answered[m] = verify(m, answered[m])
    print(f'{os.environ["KILLS"]} kills, transactions: {answered}, seed {SEED}')


main()
