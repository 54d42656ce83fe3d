// How a launch fails: a message that says which kernel, block, thread and line, and the jump out; faults are caught here.
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <iterator>

#include "state.hpp"

namespace emulator {

sigjmp_buf escape;

static int describe(char* to, size_t size, const Thread& thread) {
    return snprintf(to, size, "thread (%u, %u, %u)", thread.index.x, thread.index.y, thread.index.z);
}

static const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int write_where(char* to, size_t size) {
    int n = snprintf(to, size, "%s, block (%u, %u, %u), ", launch->name, block_index.x, block_index.y, block_index.z);
    return n + describe(to + n, size - n, *current);
}

void fail(Site site, const char* format, ...) {
    char* to = launch->message;
    const size_t size = sizeof launch->message;
    int n = write_where(to, size);
    if (site.file) n += snprintf(to + n, size - n, ", %s:%d", base_name(site.file), site.line);
    n += snprintf(to + n, size - n, ": ");
    va_list values;
    va_start(values, format);
    vsnprintf(to + n, size - n, format, values);
    va_end(values);
    siglongjmp(escape, 1);
}

// Nothing can run and not all are at one barrier: name one thread that waits and one for which it waits in vain.
void fail_stuck() {
    Thread* waiting = nullptr;
    for (unsigned t = 0; t < num_threads && !waiting; ++t)
        if (threads[t].waits_in) waiting = &threads[t];
    char other[256] = "";
    for (unsigned t = 0; t < num_threads && !*other; ++t) {
        const Thread& thread = threads[t];
        if (thread.waits_in && thread.waits_in == waiting->waits_in && thread.site == waiting->site) continue;
        int n = describe(other, sizeof other, thread);
        if (thread.waits_in)
            snprintf(other + n, sizeof other - n, " waits in %s at line %d", thread.waits_in, thread.site.line);
        else
            snprintf(other + n, sizeof other - n, " has exited");
    }
    current = waiting;
    fail(waiting->site, "divergent: it waits in %s, but %s", waiting->waits_in, *other ? other : "not all lanes come");
}

void fail_grid(const Block& other, uint64_t number) {
    const uint3 at = index_of_block(number);
    char does[128];
    if (other.state == EXITED)
        snprintf(does, sizeof does, "has exited");
    else if (other.threads[0].site == current->site)
        snprintf(does, sizeof does, "waits there with another state");
    else
        snprintf(does, sizeof does, "waits in grid_barrier at line %d", other.threads[0].site.line);
    fail(current->site, "divergent: it waits in grid_barrier, but block (%u, %u, %u) %s", at.x, at.y, at.z, does);
}

static pthread_t owner;
constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static struct sigaction before[std::size(FAULTS)];
static stack_t stack_before;

static void on_fault(int number, siginfo_t* info, [[maybe_unused]] void* context) {
    if (!pthread_equal(pthread_self(), owner)) {
        signal(number, SIG_DFL);
        return;
    }
    if (interleaved && number == SIGSEGV && admit_write(block->view, reinterpret_cast<uintptr_t>(info->si_addr))) return;
    launch->fault_address = number == SIGSEGV || number == SIGBUS ? reinterpret_cast<uintptr_t>(info->si_addr) : 0;
#if defined(__x86_64__)
    launch->program_counter = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
#endif
    const auto fault = reinterpret_cast<char*>(launch->fault_address);
    const char* stack = current->fiber ? current->fiber->stack : nullptr;
    const char* what = number == SIGILL   ? "index outside an array, misaligned address, or __trap"
                       : number == SIGFPE ? "integer division by zero"
                       : stack && fault >= stack - PAGE_BYTES && fault < stack ? "stack overflow"
                       : fault >= shared_end && fault < shared_end + PAGE_BYTES
                           ? "access past the end of dynamic shared memory"
                           : "illegal memory access";
    fail({}, "%s", what);
}

FaultsCaught::FaultsCaught() {
    owner = pthread_self();
    alignas(16) static char signal_stack[64 * 1024];
    const stack_t stack = {.ss_sp = signal_stack, .ss_flags = 0, .ss_size = sizeof signal_stack};
    sigaltstack(&stack, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (size_t i = 0; i < std::size(FAULTS); ++i) sigaction(FAULTS[i], &action, &before[i]);
}

FaultsCaught::~FaultsCaught() {
    for (size_t i = 0; i < std::size(FAULTS); ++i) sigaction(FAULTS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
}

}  // namespace emulator
