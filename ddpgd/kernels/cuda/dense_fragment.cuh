// Fragments of a factor, for tensor cores, out of a stage in shared memory.
#include "ptx.cuh"
#include "value.cuh"

constexpr int FRAGMENT_DEPTH = 32 / static_cast<int>(sizeof(Value));

// The fragments of 16 lines, of which each takes eight; which ones is free, as long as the sums are put where they belong.
// load_matrices reads neighbours. It does not transpose 32 bits: of a tf32 factor that lies across the sum, one fragment takes
// the even lines and the other the odd, so that one load of two neighbours serves both.
template <bool LEFT, bool ALONG, int PITCH>
struct Fragments {
    static constexpr int HALF = FRAGMENT_DEPTH / 2;
    static constexpr bool INTERLEAVED = !ALONG && sizeof(Value) == 4;

    // The line that is number n of a fragment.
    static __device__ __forceinline__ int line(int second, int n) { return INTERLEAVED ? 2 * n + second : 8 * second + n; }

    // Where a line's term is in a stage.
    static __device__ __forceinline__ constexpr int place(int line, int term) {
        return ALONG ? line * PITCH + term : term * PITCH + line;
    }

    // Where a lane reads the first lines and terms: its row of a matrix, or two neighbours of a term.
    static __device__ __forceinline__ int place_of_lane(int lane) {
        if constexpr (INTERLEAVED) return place(lane / 4 * 2, lane % 4);
        const int register_is_odd = lane / 8 % 2, register_is_high = lane / 16;
        const int line = 8 * (LEFT ? register_is_odd : register_is_high);
        const int term = HALF * (LEFT ? register_is_high : register_is_odd);
        return ALONG ? place(line + lane % 8, term) : place(line, term + lane % 8);
    }

    // Of the left factor, odd registers hold the second fragment and high ones the second half of the terms; of the right the
    // other way round, since a product takes neighbouring registers.
    static __device__ __forceinline__ void load(unsigned (&registers)[4], const Value* at) {
        if constexpr (INTERLEAVED) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float2 two = *reinterpret_cast<const float2*>(at + half * HALF * PITCH);
                registers[LEFT ? 2 * half : half] = to_tf32(two.x);
                registers[LEFT ? 2 * half + 1 : half + 2] = to_tf32(two.y);
            }
        } else {
            load_matrices<!ALONG>(registers, at);
            if constexpr (sizeof(Value) == 4) {
#pragma unroll
                for (int r = 0; r < 4; ++r) registers[r] = to_tf32(__uint_as_float(registers[r]));
            }
        }
    }
};
