/* SPDX-License-Identifier: MIT */
/*
 * The designs that lost, for people: what they are, who said what about them, and the threads with whom each goes wrong.
 * What a mail says is told in our own words; what no mail says, but follows, is called ours.
 */
#include "model/scenarios.h"

enum { LETTERS = 12 };

/* In the order of variant.h, which gives the letters. */
static const struct {
	size_t flag;
	unsigned debate;
	const char *what;
} variants[] = {
#define VARIANT_TEXT(name, debate, what) {offsetof(struct variants, name), debate, what},
	VARIANTS(VARIANT_TEXT)
#undef VARIANT_TEXT
};
_Static_assert(ARRAY_SIZE(variants) == LETTERS, "each variant has its story here");

#define LOSING(id, number) .name = id, .flag = offsetof(struct variants, number)

const struct losing losing[LETTERS] = {
	{
		LOSING("cow-by-page-count", cow_by_page_count), .who = {"private-dma", "mprotect-store"}, .start = DIRTY,
		.counts = true,
		.wish = "After fork, two address spaces share a private page. Whoever stores to it first must copy it, unless "
			"the other one is gone. The number of references to the page seems to tell: if it is one, nobody else "
			"has the page, and it can be written where it is. One number, and it is there already.",
		.rule = "R11: whether a private page may be written where it is, is decided by the exclusive bit of its page "
			"table entry, under the page table's lock, and never by a count.",
		.said = "That the page count can't be used for this is what the thread's subject says; this mail of it is "
			"about the lock over page faults. Why it can't, the story shows.",
		.shown = "The page belongs to this process alone, and a device is about to store into it. It loses the right "
			 "to store and gets it back (mprotect), and the next store finds a reference more than its own: the "
			 "pin. So it copies. From then on the program has frame 3, and what the device stores into frame 2 "
			 "reaches nobody. Expected: the program sees what the device has stored last.",
	},
	{
		LOSING("cow-by-mapcount", cow_by_mapcount), .who = {"private-read", "fork"}, .start = SHARED_ONCE,
		.counts = true,
		.wish = "As cow-by-page-count, but counting only who maps the page, so that a pin does not disturb. Pins are "
			"taken without a lock (fast GUP), and look at that number too: one means that the page is the "
			"process's own and can be pinned where it is.",
		.rule = "R11 and R10: COW and pins look at the exclusive bit. A fast pin counts itself, has a full barrier, and "
			"looks at the page table entry again; it never looks at a map count. fork takes the bit away, or "
			"copies (R12).",
		.said = "Fast GUP can't take the lock that fork takes, so whatever it reads of the map count may be changed by "
			"fork at that moment: such a check is racy by its nature. What COW and GUP need is one exact design.",
		.shown = "The page was shared once; now its count is 1, so T1 pins it for a device to read, without a lock. "
			 "Then fork shares it again: the count is 2. T1 stores, and by the same rule that means: copy. The "
			 "program has frame 3 now, the device reads frame 2. Expected: the device reads what the program has "
			 "stored after it pinned.",
	},
	{
		LOSING("bounce-too-late", bounce_too_late), .who = {"direct-read", "fsync"}, .start = DIRTY,
		.wish = "If a device may still store into a page, writeback must write a copy of it (a bounce page). Where to "
			"look whether it is pinned? Where the dirty bit is cleared, all filesystems come by: no "
			"filesystem has to be changed.",
		.rule = "R2: write-protect the page wherever it is mapped, then read the pins, then decide where the bytes come "
			"from, and only then take the first byte.",
		.said = "Jerome Glisse proposed to find out when page_mkclean() goes through the mappings, and to use a bounce "
			"page if the page is pinned. The answer: filesystems generally have put the page into bios before they "
			"call clear_page_dirty_for_io(); there it is too late to bounce.",
		.shown = "Writeback sees the pin, but the page's own bytes are already on their way. The device stores between "
			 "the checksum and the disk. Expected: the bytes that were checksummed are those that are written.",
	},
	{
		LOSING("dirty-at-unpin", dirty_at_unpin), .who = {"direct-read", "fsync"}, .start = CLEAN,
		.wish = "A device has stored into a pinned page of a file, so the page is dirty. When is that said? At unpin, when "
			"it has happened: pins stay simple, and nobody is asked for anything before.",
		.rule = "R1 and R3: a page becomes dirty only after mkwrite has agreed (space is reserved then); a pin for "
			"writing calls it before it pins, the page stays dirty as long as it is pinned, and unpin has nothing to ask.",
		.said = "The goal is that ->page_mkwrite() is called on a clean page before it is marked dirty: this prevents "
			"corruption, and not just a crash. It probably can't be called from put_user_page(), so to set "
			"it right at unpin is unlikely to work at all.",
		.shown = "T1 pins a clean page, the device stores, and unpin sets the page dirty. The filesystem has never "
			 "heard of it when it is to write the page, at the latest when all threads have ended and all is synced: "
			 "no space is reserved. (fsync came first here, and found nothing to write.) Expected: mkwrite first.",
	},
	{
		LOSING("lock-upgrade", lock_upgrade), .who = {"read-fault", "munmap"}, .start = COLD, .ranges = true,
		.wish = "A page fault finds its range under the mm lock, held for reading, and learns that it needs more: to "
			"read the disk, or to change the range. So it drops the lock, does it or takes the lock "
			"again for writing, and goes on.",
		.rule = "R7 and R6: who drops the lock uses only what he holds references to, and returns RETRY: everything is "
			"looked up again. The result is installed only if the range's sequence count is what it was. No "
			"lock is upgraded.",
		.said = "The mail defends such a patch: its author says that the race is accounted for there, and that nothing "
			"breaks. The mails that it quotes object. Richard Weinberger: when the lock is dropped, others come "
			"before it is taken again. Christoph Hellwig: existing users of lock_page_or_retry return VM_FAULT_RETRY at "
			"once, and touch only the page that they reference. What you see here is the race that is not accounted for.",
		.shown = "The fault drops the lock to read the disk. Meanwhile munmap marks the range as changed, and takes its "
			 "pages away; nothing is mapped there so far. Then the fault goes on where it was, though the sequence "
			 "count is 1 by now and was 0, and maps the page into a range that is going away. "
			 "Expected: after munmap nothing can be loaded there.",
	},
	{
		LOSING("busy-is-success", busy_is_success), .who = {"xip-load", "xip-store"}, .start = COLD,
		.wish = "Two threads fault on one page. The one who comes second finds an entry in the page table (EBUSY). It "
			"is there, so the fault has done what it should: success, whatever is mapped.",
		.rule = "R9: if the same page is there, it is done; if another one is, the fault drops its own, counts it, and "
			"begins again.",
		.said = "Jan Kara asks whether all callers are fine with EBUSY, since a page other than the caller's may be in "
			"the page tables, and the caller may have to drop a reference. Matthew Wilcox's audit of the callers had "
			"found that it always meant the same page; Jan Kara is content with that, and suggests a comment that says "
			"what is assumed. In pinfs there are files in which it is not so.",
		.shown = "T1 loads a page that lies in place in the image. Before it maps that, T2 stores to the same page, "
			 "which gives it a page of the cache (frame 0). T1 finds an entry, takes that for its own, and tells "
			 "the TLB of the page in place. Expected: T1 loads what T2 has stored.",
	},
	{
		LOSING("callback-under-lock", callback_under_lock), .who = {"write-fault", "write-from-mapping"}, .start = CLEAN,
		.locks = true,
		.wish = "The mm lock is taken when a fault begins, and dropped when it has ended. Nothing can change "
			"underneath, nothing has to be looked up twice; the filesystem's fault and mkwrite run in between.",
		.rule = "R6 and R8: fault and mkwrite run without the mm lock, with a reference to the range. Nobody sleeps, does "
			"I/O or allocates under it, and it comes last in the order of locks.",
		.said = "Jan Kara: for filesystems this lock is painful, as page faults take it and the filesystem's own locks "
			"in the opposite order of read and write, which copy from and to memory inside theirs. It has long been "
			"a source of deadlocks, stale data and corruption. Linus Torvalds, quoted there: at least no I/O and no "
			"allocations under it, with a flag of the thread that a warning can look at. Matthew Wilcox, quoted: hold a "
			"reference to the VMA if I/O is needed.",
		.shown = "T2 is a write(2) from a mapping of the same file: it holds the inode lock, and may fault, which takes "
			 "the mm lock. So the order is inode lock, folio lock, mm lock. The fault of T1 holds the mm lock "
			 "and wants the folio's: the opposite. The order of locks is checked where a lock is taken, so that "
			 "one thread is enough to see it; with the wrong neighbours it is a deadlock.",
	},
	{
		LOSING("fork-protects-pinned", fork_protects_pinned), .who = {"private-dma", "fork", "private-store"},
		.start = DIRTY,
		.wish = "fork shares all private pages and write-protects them on both sides; whoever stores first gets a copy. "
			"Why should a pinned page be another case? It is cheaper to copy later, or never.",
		.rule = "R12: fork copies a pinned private page for the child at once; the parent keeps the very page that it has "
			"pinned.",
		.said = "The mail does not name this design. It demands that COW and GUP follow one design whose rules are "
			"exact also when fork comes in between; R12 is what that means for fork in pinfs.",
		.shown = "T1 has pinned a private page for a device, when T2 forks: the page is write-protected. T3, of the same "
			 "process, stores: the parent gets the copy (frame 4), and what the device stores into frame 2 reaches "
			 "nobody. Expected: the parent sees what the device has stored.",
	},
	{
		LOSING("pin-without-barrier", pin_without_barrier), .who = {"direct-read", "fsync"}, .start = DIRTY,
		.wish = "A fast pin adds itself to the count and looks at the page table entry again. A full barrier "
			"between the two is the most expensive thing in it, and the steps are in the right order in the program.",
		.rule = "R10: count, full barrier, look again. Cleaning does it the other way round: take the right to store away, "
			"full barrier, read the count. One of the two sees the other.",
		.said = "The mail does not speak of barriers. It says that without the lock an optimistic check that "
			"may be wrong is a bug: the rules need to be exact. R10 is how pinfs makes one exact without a lock.",
		.shown = "T1's count stays in its processor's store buffer while it looks at the entry, which is still writable. "
			 "fsync takes that right away, reads no pins, and takes the page for clean. The device's store comes "
			 "after that, and is never written. Expected: what was stored is on the disk after the last sync.",
	},
	{
		LOSING("reclaim-tests-first", reclaim_tests_first), .who = {"direct-write-after", "reclaim"}, .start = CLEAN,
		.wish = "To reclaim a page costs a walk through all page tables that map it. If it is pinned, that is in vain: "
			"so look at the pins first, and unmap only what can go.",
		.rule = "R4: unmap, full barrier, then test the pins, then free. Once it is unmapped, no fast pin can come.",
		.said = "The mail is about writeback, not about reclaim: decide too early or too late, and somebody still uses the "
			"page. That the same holds for reclaim is ours.",
		.shown = "Reclaim reads: no pins. Before it unmaps the page, T1 pins it by the entry that is still there. The page "
			 "leaves the cache all the same; T1 faults, gets the page anew (frame 1) and stores, while the device looks "
			 "at frame 0. Expected: the device reads what the program has stored.",
	},
	{
		LOSING("clean-pinned", clean_pinned), .who = {"long-pin", "fsync"}, .start = DIRTY,
		.wish = "Writeback has written all that was there when it began, from a copy, so the page is clean. If the device "
			"stores again, somebody will set it dirty again.",
		.rule = "R3: a page that is pinned for writing stays dirty after its writeback, until it is no longer pinned.",
		.said = "A page should be marked dirty only after ->page_mkwrite(), and that probably can't be called from "
			"put_user_page(). If nothing can tell at unpin, a page must not become clean while it is "
			"pinned: that conclusion is ours.",
		.shown = "fsync bounces the pinned page, as it should, but calls it clean. The device stores once more into "
			 "a page that is clean and write-protected, which no fault notices. Expected: what was stored last is on "
			 "the disk after the last sync.",
	},
	{
		LOSING("truncate-reuses", truncate_reuses), .who = {"long-pin", "truncate-grow", "read-fault"}, .start = DIRTY,
		.wish = "When a file is truncated, its pages are gone; so is their memory, which others wait for. Whoever still "
			"has them pinned stores into a file's end that is no longer there: his problem.",
		.rule = "R5: truncate and hole punch take a pinned page out of the file at once, but its memory stays until the last "
			"unpin. Late stores reach nobody.",
		.said = "The mail speaks of devices that still write while writeback looks away; truncation is not named. That "
			"the memory must outlive the pin is ours.",
		.shown = "T1 has pinned page 0 for a device. T2 truncates the file and makes it longer again. T3 reads page 0, now "
			 "zeroes, which gets the same frame 0 again. The device's late store lands in it. "
			 "Expected: after the truncation everybody reads zeroes.",
	},
};
const unsigned losing_count = LETTERS;

static unsigned variant_of(const struct losing *d)
{
	for (unsigned i = 0; i < LETTERS; i++)
		if (variants[i].flag == d->flag)
			return i;
	return 0;
}

const struct losing *losing_find(const char *name)
{
	for (unsigned i = 0; i < LETTERS; i++)
		if (!strcmp(losing[i].name, name) || (name[0] == losing_letter(&losing[i]) && !name[1]))
			return &losing[i];
	return NULL;
}

char losing_letter(const struct losing *d)
{
	return (char)('a' + (d - losing));
}

unsigned losing_debate(const struct losing *d)
{
	return variants[variant_of(d)].debate;
}

const char *losing_instead(const struct losing *d)
{
	return variants[variant_of(d)].what;
}

const char *losing_mail(unsigned debate)
{
	static const char *const mails[] = {
		"Nicolas Pitre, Tue Oct 03 2017, \"Re: [PATCH v4 4/5] cramfs: add mmap support\"",
		"Jan Kara, Fri Jan 15 2021, \"Re: [PATCH 0/2] page_count can't be used to decide when wp_page_copy\"",
		"Jan Kara, Mon Apr 23 2018, \"Re: [PATCH v3] fs: dax: Adding new return type vm_fault_t\"",
		"Linus Torvalds, in answer to David Hildenbrand's mail of Fri, Dec 17, 2021, on fast GUP, page_mapcount() and fork",
		"Dave Chinner, in answer to Jerome Glisse's mail of Wed, Dec 12, 2018, on writeback of pages that GUP has pinned",
	};

	return debate && debate <= ARRAY_SIZE(mails) ? mails[debate - 1] : "?";
}

const char *losing_actor(const char *actor)
{
	static const struct {
		const char *actor, *does;
	} texts[] = {
		{"private-dma", "pins its private page, a device stores into it, unpins"},
		{"private-read", "pins its private page, stores, then a device reads the page, unpins"},
		{"private-store", "stores to the private page and loads it"},
		{"mprotect-store", "makes the private page read-only and writable again, stores to it and loads it"},
		{"fork", "forks; the child loads the private page and stores to it"},
		{"direct-read", "a direct read from a device into page 0: pins it, the device stores into it, unpins"},
		{"direct-write-after", "a direct write to a device from page 0: pins it, the program stores, the device reads it, unpins"},
		{"long-pin", "pins page 0 for long, a device stores into it twice, unpins"},
		{"fsync", "writes what is dirty, and compares the disk with what was stored before"},
		{"read-fault", "loads from page 0"},
		{"write-fault", "stores to page 0"},
		{"write-from-mapping", "write(2) whose bytes come from a mapping of the same file"},
		{"munmap", "unmaps page 0, then tries to load from it"},
		{"xip-load", "loads twice from page 0, which lies in place in the image"},
		{"xip-store", "stores to page 0, which lies in place in the image, and loads it"},
		{"reclaim", "takes memory back from the cache"},
		{"truncate-grow", "truncates the file to nothing and makes it longer again"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (!strcmp(texts[i].actor, actor))
			return texts[i].does;
	return NULL;
}
