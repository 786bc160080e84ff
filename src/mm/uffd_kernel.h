/* SPDX-License-Identifier: MIT */
/*
 * What uffd.c tells the kernel of another process's page tables: one ioctl each. The explorer has a model of it in its place.
 *
 * Used by: mm. Private to src/mm. Each returns 0 or -errno as the ioctl; -EAGAIN: the process has not stopped changing its address space
 * for a long time. They sleep.
 */
#ifndef PINFS_MM_UFFD_KERNEL_H
#define PINFS_MM_UFFD_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

/* The page of the memfd that lies there is mapped; off: and can't be stored to. -EEXIST: one is mapped; -EFAULT: there is none. */
int uffd_kernel_continue(int fd, uint64_t addr, bool off);
/* off: nobody can store there after it returns; else that ends, and who waits goes on. */
int uffd_kernel_protect(int fd, uint64_t addr, uint64_t pages, bool off);
/* Who waits for the page tries again. */
int uffd_kernel_wake(int fd, uint64_t addr);
/* Accesses of the page, which is not mapped, are SIGBUS. -EEXIST: it is mapped, or was write-protected when it left. */
int uffd_kernel_poison(int fd, uint64_t addr);
void uffd_kernel_close(int fd);

#endif
