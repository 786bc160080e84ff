# SPDX-License-Identifier: MIT
"""io_uring for the numbered tests, by its system calls: writes and reads that are under way together."""
from fs import *

SETUP, ENTER = 425, 426
READ, WRITE = 22, 23
GETEVENTS = 1
RINGS, SQES = 0, 0x10000000
FEAT_SINGLE_MMAP = 1


class Ring:
    def __init__(self, entries):
        params = ctypes.create_string_buffer(120)
        if outcome(call, 'syscall', SETUP, 1, ctypes.create_string_buffer(120)) in ('EPERM', 'ENOSYS'):
            not_run('io_uring is not to be had')
        self.fd = call('syscall', SETUP, entries, params)
        v = struct.unpack('=30I', params.raw)
        assert v[5] & FEAT_SINGLE_MMAP
        self.entries, cq_entries = v[0], v[1]
        self.sq_tail, self.sq_mask, self.sq_array = v[11] // 4, v[12] // 4, v[16] // 4
        self.cq_head, self.cq_tail, self.cq_mask, self.cqes = v[20] // 4, v[21] // 4, v[22] // 4, v[25]
        self.bytes = mmap.mmap(self.fd, max(v[16] + 4 * self.entries, self.cqes + 16 * cq_entries), offset=RINGS)
        self.words = memoryview(self.bytes).cast('I')
        self.sqes = mmap.mmap(self.fd, 64 * self.entries, offset=SQES)

    def close(self):
        self.words.release()
        self.bytes.close()
        self.sqes.close()
        os.close(self.fd)

    def submit(self, opcode, fd, address, length, offset, tag):
        tail = self.words[self.sq_tail]
        at = tail & self.words[self.sq_mask]
        struct.pack_into('=BBHiQQIIQ24x', self.sqes, at * 64, opcode, 0, 0, fd, offset, address, length, 0, tag)
        self.words[self.sq_array + at] = at
        self.words[self.sq_tail] = (tail + 1) & 0xffffffff
        # The system call orders these stores before the kernel's loads.
        eq(call('syscall', ENTER, self.fd, 1, 0, 0, None, 0), 1)

    def wait(self):
        """The next that is done: (tag, result)."""
        head = self.words[self.cq_head]
        while head == self.words[self.cq_tail]:
            call('syscall', ENTER, self.fd, 0, 1, GETEVENTS, None, 0)
        tag, result = struct.unpack_from('=Qi', self.bytes, self.cqes + 16 * (head & self.words[self.cq_mask]))
        self.words[self.cq_head] = (head + 1) & 0xffffffff
        return tag, result
