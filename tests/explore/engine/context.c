/* SPDX-License-Identifier: MIT */
/*
 * Coroutines. A switch pushes what a call preserves on the stack that is left and pops it from the one that is entered.
 * explore_op(), which the code under test calls, is assembly, too: it pushes the registers that a call preserves right
 * below its caller's frame, and what is from there upwards is all there is to hash; the engine's own frames below are
 * not. When it returns it clears a part of the stack below: what calls leave there would show up in the frames of
 * later ones, where they leave something unwritten (padding, slots of registers), and give equal states different
 * hashes.
 *
 * Elsewhere than on x86-64 and ARM64 (or with EXPLORE_UCONTEXT) it's swapcontext(), with system calls, registers in a
 * structure beside the stack, and more states that look different.
 *
 * The scheduler runs on the stack of whoever called explore_search(); actors only ever switch to it and back.
 */
#include "internal.h"

#include <signal.h>
#include <ucontext.h>

#if !defined(EXPLORE_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define EXPLORE_UCONTEXT 1
#endif

static void (*entry_fn)(unsigned i);
static const void *scheduler_bottom;
static size_t scheduler_size;

#ifdef EXPLORE_ASAN
/*
 * Local variables must lie on the coroutine's stack, not in what detect_stack_use_after_return allocates: they would be
 * missing in the hash. So the explorer and the code under test are compiled without it (see meson.build).
 */
static void fiber_leave(void **fake, const void *bottom, size_t size)
{
	__sanitizer_start_switch_fiber(fake, bottom, size);
}
static void fiber_arrive(void *fake, const void **bottom, size_t *size)
{
	__sanitizer_finish_switch_fiber(fake, bottom, size);
}
#else
static inline void fiber_leave(void **fake, const void *bottom, size_t size)
{
}
static inline void fiber_arrive(void *fake, const void **bottom, size_t *size)
{
}
#endif

/* Where each actor's code begins. */
__attribute__((used)) static void context_entry(unsigned i)
{
	fiber_arrive(NULL, &scheduler_bottom, &scheduler_size);
	entry_fn(i);
	abort(); /* an actor that has ended leaves and is not entered again */
}

#ifdef EXPLORE_UCONTEXT

static ucontext_t scheduler_context;
static ucontext_t *context_of(unsigned i)
{
	/* In the region above the stack, so that it's zeroed and hashed with it. */
	return (ucontext_t *)((stack_top(i) - sizeof(ucontext_t)) & ~63ull);
}

static void context_first(int i)
{
	context_entry((unsigned)i);
}

void context_make(unsigned i, void (*entry)(unsigned i))
{
	ucontext_t *context = context_of(i);

	entry_fn = entry;
	getcontext(context);
	context->uc_stack.ss_sp = (void *)stack_bottom(i);
	context->uc_stack.ss_size = (uintptr_t)context - stack_bottom(i);
	context->uc_link = NULL;
	makecontext(context, (void (*)(void))context_first, 1, (int)i);
	actor(i)->sp = actor(i)->live = context;
}

static void swap_in(unsigned i)
{
	swapcontext(&scheduler_context, context_of(i));
}

/* What lies below this frame is swapcontext()'s, and dead; some slack is for what the compiler keeps below. */
static __attribute__((noinline)) void swap_out(unsigned i)
{
	actor(i)->sp = (void *)(((uintptr_t)__builtin_frame_address(0) - 256) & ~15ull);
	actor(i)->live = actor(i)->sp;
	swapcontext(context_of(i), &scheduler_context);
}

uint64_t explore_op(unsigned code, const void *object, uint64_t a, uint64_t b, const struct explore_site *site)
{
	return op_stop(code, object, a, b, site, NULL);
}

#else

/* Saves the registers that a call preserves, stores the stack pointer in *save, takes `load` for it, and restores. */
void explore_context_swap(void **save, void *load);

#if defined(__x86_64__)
__asm__(".text\n"
	".p2align 4\n"
	".globl explore_context_swap\n"
	".hidden explore_context_swap\n"
	".type explore_context_swap, @function\n"
	"explore_context_swap:\n"
	"	.cfi_startproc\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size explore_context_swap, . - explore_context_swap\n"
	/* The first return goes here, with the actor's number in rbx. */
	".p2align 4\n"
	".type explore_context_start, @function\n"
	"explore_context_start:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined rip\n"
	"	movl %ebx, %edi\n"
	"	call explore_context_entry\n"
	"	ud2\n"
	"	.cfi_endproc\n"
	".size explore_context_start, . - explore_context_start\n");
__asm__(".text\n"
	".p2align 4\n"
	".globl explore_op\n"
	".hidden explore_op\n"
	".type explore_op, @function\n"
	"explore_op:\n"
	"	.cfi_startproc\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	pushq $0\n" /* aligns */
	"	.cfi_def_cfa_offset 64\n"
	"	movq %rsp, %r9\n"
	"	call explore_op_stop\n"
	"	addq $56, %rsp\n"
	"	.cfi_def_cfa_offset 8\n"
	"	cmpl $0, explore_clears(%rip)\n"
	"	je 2f\n"
	"	pxor %xmm0, %xmm0\n"
	"	movq %rsp, %rdi\n"
	"	leaq -512(%rsp), %rcx\n"
	"1:	movups %xmm0, -16(%rdi)\n"
	"	movups %xmm0, -32(%rdi)\n"
	"	movups %xmm0, -48(%rdi)\n"
	"	movups %xmm0, -64(%rdi)\n"
	"	subq $64, %rdi\n"
	"	cmpq %rcx, %rdi\n"
	"	jne 1b\n"
	"2:	ret\n"
	"	.cfi_endproc\n"
	".size explore_op, . - explore_op\n");
#define SAVED_WORDS 7
#define SAVED_NUMBER 4 /* rbx */
#define SAVED_RETURN 6
#else
__asm__(".text\n"
	".p2align 4\n"
	".globl explore_context_swap\n"
	".hidden explore_context_swap\n"
	".type explore_context_swap, %function\n"
	"explore_context_swap:\n"
	"	.cfi_startproc\n"
	"	hint #34\n" /* bti c */
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size explore_context_swap, . - explore_context_swap\n"
	/* The first return goes here, with the actor's number in x19. */
	".p2align 4\n"
	".type explore_context_start, %function\n"
	"explore_context_start:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined x30\n"
	"	hint #36\n" /* bti j */
	"	mov w0, w19\n"
	"	bl explore_context_entry\n"
	"	brk #1\n"
	"	.cfi_endproc\n"
	".size explore_context_start, . - explore_context_start\n");
__asm__(".text\n"
	".p2align 4\n"
	".globl explore_op\n"
	".hidden explore_op\n"
	".type explore_op, %function\n"
	"explore_op:\n"
	"	.cfi_startproc\n"
	"	hint #34\n" /* bti c */
	"	sub sp, sp, #160\n"
	"	.cfi_def_cfa_offset 160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	.cfi_offset 29, -80\n"
	"	.cfi_offset 30, -72\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x5, sp\n"
	"	bl explore_op_stop\n"
	"	ldr x30, [sp, #88]\n"
	"	add sp, sp, #160\n"
	"	.cfi_restore 30\n"
	"	.cfi_def_cfa_offset 0\n"
	"	adrp x10, explore_clears\n"
	"	ldr w10, [x10, :lo12:explore_clears]\n"
	"	cbz w10, 2f\n"
	"	mov x9, sp\n"
	"	sub x10, sp, #512\n"
	"1:	stp xzr, xzr, [x10], #16\n"
	"	stp xzr, xzr, [x10], #16\n"
	"	cmp x10, x9\n"
	"	b.lo 1b\n"
	"2:	ret\n"
	"	.cfi_endproc\n"
	".size explore_op, . - explore_op\n");
#define SAVED_WORDS 20
#define SAVED_NUMBER 0 /* x19 */
#define SAVED_RETURN 11 /* x30 */
#endif
extern const char explore_context_start[] __attribute__((visibility("hidden")));
void explore_context_entry(unsigned i) __attribute__((alias("context_entry"), visibility("hidden")));

/* Whether explore_op() clears what is below. */
extern unsigned explore_clears __attribute__((visibility("hidden")));
unsigned explore_clears = 1;

/* What explore_op() calls, with where its caller's registers are. */
uint64_t explore_op_stop(unsigned code, const void *object, uint64_t a, uint64_t b, const struct explore_site *site,
	void *live) __attribute__((visibility("hidden")));
__attribute__((used)) uint64_t explore_op_stop(unsigned code, const void *object, uint64_t a, uint64_t b,
	const struct explore_site *site, void *live)
{
	return op_stop(code, object, a, b, site, live);
}

void context_make(unsigned i, void (*entry)(unsigned i))
{
	uint64_t *sp = (uint64_t *)(stack_top(i) - 64) - SAVED_WORDS;

	entry_fn = entry;
	memset(sp, 0, SAVED_WORDS * sizeof(*sp));
	sp[SAVED_NUMBER] = i;
	sp[SAVED_RETURN] = (uintptr_t)explore_context_start;
	actor(i)->sp = actor(i)->live = sp;
}

static void swap_in(unsigned i)
{
	explore_context_swap(&engine.scheduler_sp, actor(i)->sp);
}

static void swap_out(unsigned i)
{
	explore_context_swap(&actor(i)->sp, engine.scheduler_sp);
}
#endif

void context_begin(void)
{
#ifndef EXPLORE_UCONTEXT
	/* It takes what is below the stack pointer for nobody's. */
	if (RUNNING_ON_VALGRIND)
		explore_clears = 0;
#endif
}

void context_enter(unsigned i)
{
	void *fake = NULL;

	engine.inside = true;
	engine.self = i;
	sync_self = actor(i)->self;
	fiber_leave(&fake, (void *)stack_bottom(i), STACK_SIZE);
	swap_in(i);
	fiber_arrive(fake, NULL, NULL);
	engine.inside = false;
	if (unlikely(engine.failure == EXPLORE_CRASHED))
		engine.stack_low[i] = stack_bottom(i); /* it was left from the signal's stack */
	else if ((uintptr_t)actor(i)->sp < engine.stack_low[i])
		engine.stack_low[i] = (uintptr_t)actor(i)->sp;
}

void context_leave(void)
{
	void *fake = NULL;

	fiber_leave(&fake, scheduler_bottom, scheduler_size);
	swap_out(engine.self);
	fiber_arrive(fake, &scheduler_bottom, &scheduler_size);
}

/* ---- crashes ---- */

#ifdef EXPLORE_ASAN

static void on_death(void)
{
	char *schedule;

	if (!engine.running)
		return;
	engine.step += engine.acting; /* with the step that is under way */
	schedule = schedule_text();
	fprintf(stderr, "\nexplore: this was in %s, thread %s\nreplay: --replay=%s %s\n", engine.program->name,
		story_actor(engine.self), schedule, engine.program->name);
	free(schedule);
}

void crash_catch(void)
{
	static bool told;

	if (!told)
		__sanitizer_set_death_callback(on_death);
	told = true;
}

void crash_catch_end(void)
{
}

#else

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
#define NCRASH (sizeof(crash_signals) / sizeof(crash_signals[0]))
static struct sigaction crash_before[NCRASH];
static stack_t crash_stack_before;
static _Alignas(16) char crash_stack[64 << 10];

/*
 * The actor is given up where it is: this switches to the scheduler from the signal's own stack, and never back. The
 * signal isn't blocked (SA_NODEFER), so nothing is left to undo.
 */
static void on_crash(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;

	if (!engine.inside) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	if (sig == SIGSEGV && at - STACKS_BASE < ACTORS * STACK_STRIDE)
		run_fail(EXPLORE_CRASHED, NULL, "the stack of %s overflowed", story_actor(engine.self));
	else if (sig == SIGSEGV || sig == SIGBUS)
		run_fail(EXPLORE_CRASHED, NULL, "%s at address %#llx", strsignal(sig), (unsigned long long)at);
	else
		run_fail(EXPLORE_CRASHED, NULL, "%s", strsignal(sig));
	abort();
}

void crash_catch(void)
{
	struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	stack_t stack = {.ss_sp = crash_stack, .ss_size = sizeof(crash_stack)};

	sigaltstack(&stack, &crash_stack_before);
	for (size_t i = 0; i < NCRASH; i++)
		sigaction(crash_signals[i], &action, &crash_before[i]);
}

void crash_catch_end(void)
{
	for (size_t i = 0; i < NCRASH; i++)
		sigaction(crash_signals[i], &crash_before[i], NULL);
	sigaltstack(&crash_stack_before, NULL);
}
#endif
