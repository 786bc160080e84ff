# SPDX-License-Identifier: MIT
"""usage: super.py IMAGE FIELD VALUE [NEW_IMAGE]: changes a field of both superblocks, with the right checksums."""
import ctypes
import sys

FIELDS = {'magic': (0, 8), 'major': (8, 2), 'minor': (10, 2), 'compat': (16, 8), 'ro_compat': (24, 8),
          'incompat': (32, 8), 'image_size': (120, 8), 'inode_count': (128, 8), 'block_count': (136, 8),
          'data_offset': (152, 8), 'data_end': (160, 8), 'block_size': (180, 4), 'sections': (184, 4),
          'restart': (188, 4), 'index_offset': (512 + 32, 8)}
xxhash = ctypes.CDLL('libxxhash.so.0')
xxhash.XXH3_64bits.restype = ctypes.c_uint64
xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

with open(sys.argv[1], 'rb') as f:
    image = bytearray(f.read())
offset, size = FIELDS[sys.argv[2]]
for at in (0, len(image) - 4096):
    image[at + offset:at + offset + size] = int(sys.argv[3], 0).to_bytes(size, 'little')
    image[at + 4088:at + 4096] = xxhash.XXH3_64bits(bytes(image[at:at + 4088]), 4088).to_bytes(8, 'little')
with open(sys.argv[-1] if len(sys.argv) > 4 else sys.argv[1], 'wb') as f:
    f.write(image)
