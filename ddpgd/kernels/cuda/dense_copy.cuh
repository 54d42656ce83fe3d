// Copies of a product's factors to shared memory that run while earlier terms are multiplied.
#include "ptx.cuh"
#include "value.cuh"

// Values that one copy moves, where the rows of a factor begin at multiples of its 16 bytes.
constexpr int PIECE = 16 / static_cast<int>(sizeof(Value));

template <bool ALONG, int WIDTH, int DEPTH, int PITCH, int GROUP>
struct Copier;

// A factor in memory: what lies across the sum begins at `first` and ends before `end`.
struct Factor {
    const Value* values;
    int pitch;
    int first;
    int end;

    template <bool ALONG, int WIDTH, int DEPTH, int PITCH, int GROUP>
    using Copier = ::Copier<ALONG, WIDTH, DEPTH, PITCH, GROUP>;
};

__device__ __forceinline__ void copy_piece(Value* to, const Value* from, bool valid) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    *reinterpret_cast<uint4*>(to) = valid ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#else
    copy_async_16(to, from, valid);
#endif
}

__device__ __forceinline__ void commit_pieces() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    copy_async_commit();
#endif
}

template <int NUM_LEFT>
__device__ __forceinline__ void wait_for_pieces() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    copy_async_wait<NUM_LEFT>();
#endif
}

// Copies a factor's terms, as they lie in memory, into a stage; what is not there becomes 0.
// A thread copies the same places of every stage, so most of where they are is known before the first.
template <bool ALONG, int WIDTH, int DEPTH, int PITCH, int GROUP>
struct Copier {
    static constexpr int LINES = ALONG ? WIDTH : DEPTH;
    static constexpr int LENGTH = ALONG ? DEPTH : WIDTH;
    static constexpr int LINE_PIECES = LENGTH / PIECE;
    static constexpr int LINE_STEP = GROUP / LINE_PIECES;
    static constexpr int NUM_PIECES = LINES / LINE_STEP;
    static_assert(GROUP % LINE_PIECES == 0 && LINES % LINE_STEP == 0, "every thread copies as many pieces");
    const Factor& factor;
    const Value* from;
    int thread, line, place, num_across;
    bool in_pieces;

    __device__ __forceinline__ Copier(const Factor& factor, int thread)
        : factor(factor),
          thread(thread),
          line(thread / LINE_PIECES),
          place(thread % LINE_PIECES * PIECE),
          num_across(factor.end - factor.first),
          in_pieces(factor.pitch % PIECE == 0) {
        from = factor.values + (ALONG ? static_cast<size_t>(factor.first + line) * factor.pitch + place
                                      : static_cast<size_t>(line) * factor.pitch + factor.first + place);
    }

    // Begins to copy terms [term, term_end).
    __device__ __forceinline__ void copy(Value* tile, int term, int term_end) const {
        if (in_pieces) {
            copy_pieces(tile, term, term_end);
        } else {
            copy_values(tile, term, term_end);
        }
    }

    // Called by the thread that has copied, when its copies have come, before the barrier after which others read them.
    __device__ __forceinline__ void finish(Value*, int, int) const {}

    __device__ __forceinline__ void copy_pieces(Value* tile, int term, int term_end) const {
        const Value* const at = from + (ALONG ? static_cast<size_t>(term) : static_cast<size_t>(term) * factor.pitch);
        Value* const to = tile + line * PITCH + place;
        const int num_lines = (ALONG ? num_across : term_end - term) - line;
        const bool place_is_valid = place < (ALONG ? term_end - term : num_across);
#pragma unroll
        for (int i = 0; i < NUM_PIECES; ++i) {
            const bool valid = place_is_valid && i * LINE_STEP < num_lines;
            copy_piece(to + i * LINE_STEP * PITCH, at + static_cast<size_t>(i * LINE_STEP) * factor.pitch, valid);
        }
    }

    __device__ __forceinline__ void copy_values(Value* tile, int term, int term_end) const {
        const int first_line = ALONG ? factor.first : term;
        const int first_place = ALONG ? term : factor.first;
        const int num_lines = ALONG ? num_across : term_end - term;
        const int num_places = ALONG ? term_end - term : num_across;
        const Value* const corner = factor.values + static_cast<size_t>(first_line) * factor.pitch + first_place;
        // All loads of a batch before its stores, which might, for all the compiler knows, change what is loaded.
        constexpr int EACH = LINES * LENGTH / GROUP;
        constexpr int BATCH = EACH < 8 ? EACH : 8;
        static_assert(LINES * LENGTH % (GROUP * BATCH) == 0, "whole batches");
#pragma unroll 1
        for (int begin = thread; begin < LINES * LENGTH; begin += GROUP * BATCH) {
            Value batch[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                const int y = (begin + i * GROUP) / LENGTH, x = (begin + i * GROUP) % LENGTH;
                const bool valid = y < num_lines && x < num_places;
                batch[i] = valid ? corner[static_cast<size_t>(y) * factor.pitch + x] : to_value(0.0f);
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                const int y = (begin + i * GROUP) / LENGTH, x = (begin + i * GROUP) % LENGTH;
                tile[y * PITCH + x] = batch[i];
            }
        }
    }
};
