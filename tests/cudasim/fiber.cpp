/* SPDX-License-Identifier: Apache-2.0 */
/* Stacks of simulated threads and the switch between them: seven instructions on x86-64, ucontext elsewhere. */
#include "cudasim/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#if defined(CUDASIM_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cudasim {

char *stack_region;
static std::vector<Stack *> idle;
static Stack host; /* the thread that runs the kernel */
#ifdef CUDASIM_ASAN
static const void *host_bottom;
static size_t host_bytes;
#endif
static bool entering;

#ifndef CUDASIM_UCONTEXT
asm(R"(
.text
.globl cudasim_switch
.hidden cudasim_switch
.type cudasim_switch,@function
cudasim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cudasim_switch,.-cudasim_switch
)");
extern "C" void cudasim_switch(void **save, void *to);
#endif

static void make_stacks() {
    size_t bytes = stack_slot * (max_threads + 1);
    void *p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "cudasim: no room for stacks\n");
        abort();
    }
    stack_region = (char *)p;
    for (int i = max_threads; i >= 0; i--) {
        char *base = stack_region + (size_t)i * stack_slot + (stack_slot - stack_bytes);
        if (mprotect(base, stack_bytes, PROT_READ | PROT_WRITE) != 0) {
            fprintf(stderr, "cudasim: no memory for stacks\n");
            abort();
        }
        idle.push_back(new Stack{base, {}, nullptr});
    }
}

Stack *stack_take() {
    if (stack_region == nullptr)
        make_stacks();
    Stack *s = idle.back();
    idle.pop_back();
    return s;
}

void stack_release(Stack *s) {
#ifdef CUDASIM_ASAN
    ASAN_UNPOISON_MEMORY_REGION(s->base, stack_bytes);
#endif
    idle.push_back(s);
}

void stack_prepare(Stack *s, void (*entry)()) {
#ifdef CUDASIM_UCONTEXT
    getcontext(&s->context);
    s->context.uc_stack.ss_sp = s->base;
    s->context.uc_stack.ss_size = stack_bytes;
    s->context.uc_link = nullptr;
    makecontext(&s->context, entry, 0);
#else
    void **top = (void **)(s->base + stack_bytes);
    *--top = nullptr; /* entry is entered as by a call: the stack is 8 off a multiple of 16 */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    s->context = top;
#endif
}

void stack_started(void) {
#ifdef CUDASIM_ASAN
    if (entering)
        __sanitizer_finish_switch_fiber(nullptr, &host_bottom, &host_bytes);
    else
        __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    entering = false;
}

static void change(Stack *from, Stack *to) {
    Stack last{};
    Stack *save = from != nullptr ? from : &last;
#ifdef CUDASIM_ASAN
    const void *bottom = to == &host ? host_bottom : to->base;
    size_t bytes = to == &host ? host_bytes : stack_bytes;
    __sanitizer_start_switch_fiber(from != nullptr ? &from->fake : nullptr, bottom, bytes);
#endif
#ifdef CUDASIM_UCONTEXT
    swapcontext(&save->context, &to->context);
#else
    cudasim_switch(&save->context, to->context);
#endif
#ifdef CUDASIM_ASAN
    __sanitizer_finish_switch_fiber(save->fake, nullptr, nullptr);
    entering = false;
#endif
}

void stack_enter(Stack *s) {
    entering = true;
    change(&host, s);
}

void stack_switch(Stack *from, Stack *to) { change(from, to); }

void stack_leave(void) {
    change(nullptr, &host);
    abort(); /* nobody resumes a stack that was left */
}

} // namespace cudasim
