// One launch: what its blocks have in common, and what Python calls.
#include <sys/mman.h>

#include "state.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace emulator {

dim3 block_shape, grid_shape;
char *dynamic_shared, *shared_end;

Launch* launch;
std::minstd_rand randomness;

static void prepare(Launch& to_launch) {
    if (!shared_end) {
        auto base = static_cast<char*>(mmap(nullptr, SHARED_BYTES + PAGE_BYTES, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        shared_end = base + SHARED_BYTES;
        mprotect(shared_end, PAGE_BYTES, PROT_NONE);
    }
    launch = &to_launch;
    interleaved = launch->order == INTERLEAVED;
    grid_shape = launch->grid;
    block_shape = launch->block;
    num_threads = block_shape.x * block_shape.y * block_shape.z;
    num_warps = (num_threads + WARP - 1) / WARP;
    dynamic_shared = shared_end - (launch->dynamic_bytes + 15) / 16 * 16;
    randomness.seed(launch->seed + 1);
}

// While one lives, subnormal operands and results count as zeros, if so wanted. Other than on a GPU, those of float64 too.
class FloatMode {
   public:
    explicit FloatMode(bool flush) : before(read()) { write(flush ? before | FLUSH : before & ~FLUSH); }
    ~FloatMode() { write(before); }

   private:
#if defined(__x86_64__)
    static constexpr uint64_t FLUSH = 1 << 15 | 1 << 6;
    static uint64_t read() { return _mm_getcsr(); }
    static void write(uint64_t mode) { _mm_setcsr(unsigned(mode)); }
#elif defined(__aarch64__)
    static constexpr uint64_t FLUSH = 1 << 24;
    static uint64_t read() {
        uint64_t mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void write(uint64_t mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#endif
    const uint64_t before;
};

}  // namespace emulator

using namespace emulator;

// 0, or 1 with `message` filled in. One launch at a time in a process.
extern "C" __attribute__((visibility("default"))) int emulator_launch(Launch* to_launch) {
    prepare(*to_launch);
    const FaultsCaught caught;
    const FloatMode mode(launch->flush_subnormals);
    if (sigsetjmp(escape, 1)) {
        forget_fibers();
        if (interleaved) unprotect_memory();
        return 1;
    }
    const uint64_t num_blocks = uint64_t{grid_shape.x} * grid_shape.y * grid_shape.z;
    if (interleaved) {
        protect_memory();
        run_interleaved(num_blocks);
        unprotect_memory();
    } else {
        launch->cooperative ? run_together(num_blocks) : run_in_turn(num_blocks);
    }
    return 0;
}
