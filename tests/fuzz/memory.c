/* SPDX-License-Identifier: MIT */
/*
 * Images in memory. A real lane of src/io is a buffer much larger than what was asked for, and a decoder that reads
 * on behind the span would not be noticed; so the linker's --wrap puts a copy of exactly the right size, on the heap,
 * between decoder and lane: AddressSanitizer sees each byte too many.
 */
#include "fuzz.h"

#include "io/io.h"

int __real_io_read(struct io_file *file, uint64_t offset, size_t len, struct io_span *ret);
int __wrap_io_read(struct io_file *file, uint64_t offset, size_t len, struct io_span *ret);
void __real_io_span_put(struct io_file *file, struct io_span *span);
void __wrap_io_span_put(struct io_file *file, struct io_span *span);

int __wrap_io_read(struct io_file *file, uint64_t offset, size_t len, struct io_span *ret)
{
	struct io_span span;
	uint8_t *copy;
	int r = __real_io_read(file, offset, len, &span);

	if (r < 0)
		return r;
	copy = malloc(len);
	FUZZ_CHECK(copy);
	memcpy(copy, span.data, len);
	__real_io_span_put(file, &span);
	*ret = (struct io_span){.data = copy, .lane = copy};
	return 0;
}

void __wrap_io_span_put(struct io_file *file, struct io_span *span)
{
	free(span->lane);
	*span = (struct io_span){0};
}

struct image *fuzz_image_open(const uint8_t *data, size_t size, const struct image_options *options)
{
	char error[IMAGE_ERROR_SIZE];
	struct image *image, *untouched;
	struct io_file *io;

	fuzz_fill(&untouched);
	image = untouched;
	memset(error, 0, sizeof(error));
	FUZZ_CHECK(io_open_memory(data, size, &io) == 0);
	if (image_open(io, options, &image, error) < 0) {
		FUZZ_CHECK(image == untouched);
		FUZZ_CHECK(error[0] && memchr(error, 0, sizeof(error)));
		io_close(io);
		return NULL;
	}
	return image;
}
