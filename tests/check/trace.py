# SPDX-License-Identifier: MIT
"""Reads a trace of pinfs mount -o trace=FILE as src/cache/trace_file.h describes it, independently of the C code.

usage: trace.py FILE EXPRESSION      prints its value. Of: events, a list of (type, time, thread, a, b); lost; complete;
                                     of(type): those of one type; units(type): the set of their a
"""
import struct
import sys

LOST, END, TIME, THREAD, B = 30, 31, 0x20, 0x40, 0x80


def parse(data):
    magic, version, page, count = struct.unpack_from('<8sIIB', data)
    assert (magic, version, page) == (b'pinfstrc', 1, 4096)
    at, types = 17, []
    for _ in range(count):
        strings = data[at:].split(b'\0', 3)[:3]
        at += sum(len(s) + 1 for s in strings)
        types.append([s.decode() for s in strings])

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed():
        v = varint()
        return v >> 1 ^ -(v & 1)

    events, lost, complete = [], 0, False
    time = thread = 0
    last_a, last_b = {}, {}
    while at < len(data):
        byte = data[at]
        at += 1
        if byte == LOST:
            lost += varint()
        elif byte == END:
            assert (varint(), varint()) == (len(events), lost) and at == len(data)
            complete = True
        else:
            name, a_name, _ = types[byte & 0x1f]
            if byte & TIME:
                time += signed()
            if byte & THREAD:
                thread = varint()
            last_a[a_name] = (last_a.get(a_name, 0) + signed()) & (1 << 64) - 1
            if byte & B:
                last_b[name] = (last_b.get(name, 0) + signed()) & (1 << 64) - 1
            events.append((name, time, thread, last_a[a_name], last_b.get(name, 0)))
    return events, lost, complete


def main():
    with open(sys.argv[1], 'rb') as f:
        events, lost, complete = parse(f.read())
    of = lambda name: [e for e in events if e[0] == name]
    units = lambda name: {e[3] for e in of(name)}
    print(eval(sys.argv[2], {'events': events, 'lost': lost, 'complete': complete, 'of': of, 'units': units}))


main()
