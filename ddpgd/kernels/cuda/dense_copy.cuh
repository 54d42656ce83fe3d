// Copies of a product's factors to shared memory that run while earlier terms are multiplied.
#include "pack.cuh"
#include "ptx.cuh"
#include "value.cuh"

// Values that one copy moves at most, where the rows of a factor begin at multiples of its 16 bytes.
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

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
constexpr int LEAST_ASYNC = 4;
#else
constexpr int LEAST_ASYNC = 32;  // none is as large
#endif

template <int BYTES>
struct PieceWords : Pack<unsigned, BYTES / 4> {};
template <>
struct PieceWords<2> : Pack<unsigned short, 1> {};

// Begins to copy BYTES, both addresses multiples of them; zeros, and no read, where not valid. Less than LEAST_ASYNC at once.
template <int BYTES>
__device__ __forceinline__ void copy_piece(void* to, const void* from, bool valid) {
    if constexpr (BYTES >= LEAST_ASYNC) {
        copy_async<BYTES>(to, from, valid);
    } else {
        *reinterpret_cast<PieceWords<BYTES>*>(to) = valid ? *reinterpret_cast<const PieceWords<BYTES>*>(from) : PieceWords<BYTES>{};
    }
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

// Copies a factor's terms, as they lie in memory, into a stage; what is not there becomes 0. Rows of a factor begin at
// multiples of 16, 8, 4 or 2 bytes, which one copy moves.
template <bool ALONG, int WIDTH, int DEPTH, int PITCH, int GROUP>
struct Copier {
    static constexpr int LINES = ALONG ? WIDTH : DEPTH;
    static constexpr int LENGTH = ALONG ? DEPTH : WIDTH;

    // A thread's part of a stage in pieces of BYTES: the first piece, and one every LINE_STEP lines below it.
    template <int BYTES>
    struct Share {
        static constexpr int SIZE = BYTES / static_cast<int>(sizeof(Value));
        static constexpr int LINE_PIECES = LENGTH / SIZE, LINE_STEP = GROUP / LINE_PIECES, NUM = LINES / LINE_STEP;
        static_assert(GROUP % LINE_PIECES == 0 && LINES % LINE_STEP == 0, "every thread copies as many pieces");
        const Value* from;
        int to, line, place, num_across;

        __device__ __forceinline__ Share(const Factor& factor, int thread)
            : line(thread / LINE_PIECES), place(thread % LINE_PIECES * SIZE) {
            to = line * PITCH + place;
            num_across = factor.end - factor.first - (ALONG ? line : place);
            from = factor.values + (ALONG ? static_cast<size_t>(factor.first + line) * factor.pitch + place
                                          : static_cast<size_t>(line) * factor.pitch + factor.first + place);
        }
    };

    const Factor& factor;
    int thread, row_bytes;
    Share<16> largest;

    __device__ __forceinline__ Copier(const Factor& factor, int thread)
        : factor(factor), thread(thread), row_bytes(factor.pitch * static_cast<int>(sizeof(Value))), largest(factor, thread) {
        // The usual way through the loop over terms, so most of it is done before.
        keep_in_register(largest.from);
        keep_in_register(largest.to);
        keep_in_register(largest.line);
        keep_in_register(largest.num_across);
    }

    // Begins to copy terms [term, term_end).
    __device__ __forceinline__ void copy(Value* tile, int term, int term_end) const {
        if (row_bytes % 16 == 0) {
            copy_pieces(largest, tile, term, term_end);
        } else if (row_bytes % 8 == 0) {
            copy_pieces(Share<8>(factor, thread), tile, term, term_end);
        } else if (sizeof(Value) == 4 || row_bytes % 4 == 0) {
            copy_pieces(Share<4>(factor, thread), tile, term, term_end);
        } else if constexpr (sizeof(Value) == 2) {
            copy_pieces(Share<2>(factor, thread), tile, term, term_end);
        }
    }

    // Called by the thread that has copied, when its copies have come, before the barrier after which others read them.
    __device__ __forceinline__ void finish(Value*, int, int) const {}

    template <int BYTES>
    __device__ __forceinline__ void copy_pieces(const Share<BYTES>& share, Value* tile, int term, int term_end) const {
        using Pieces = Share<BYTES>;
        const int num_terms = term_end - term;
        const int num_lines = ALONG ? share.num_across : num_terms - share.line;
        const bool place_is_valid = ALONG ? share.place < num_terms : share.num_across > 0;
        const Value* const from = share.from + term * (ALONG ? 1LL : static_cast<long long>(factor.pitch));
        Value* const to = tile + share.to;
        // Copies at once: all loads of a batch before its stores. Others that are small: short code, since nothing waits for them.
        constexpr int BATCH = BYTES == 16 ? Pieces::NUM : BYTES < LEAST_ASYNC ? 8 : 1;
#pragma unroll BATCH
        for (int i = 0; i < Pieces::NUM; ++i) {
            const int line = i * Pieces::LINE_STEP;
            const bool valid = place_is_valid && line < num_lines;
            copy_piece<BYTES>(to + line * PITCH, from + static_cast<size_t>(line) * factor.pitch, valid);
        }
    }
};
