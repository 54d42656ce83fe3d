// Products of tiles on tensor cores, sums in float32: tf32, float16 and bfloat16.
#include "dense_tile.cuh"

constexpr int SHARED_BUDGET = 96 * 1024;
constexpr int FRAGMENT_DEPTH = 32 / static_cast<int>(sizeof(Value));

#if defined(PRECISION_TF32)
// What a lane holds of a fragment: terms t and t + 4, one a register.
__device__ __forceinline__ void load_along(unsigned (&pair)[2], const float* line, int t) {
    pair[0] = to_tf32(line[t]);
    pair[1] = to_tf32(line[t + 4]);
}

// The same for two neighbouring lines of a factor that lies across the sum.
__device__ __forceinline__ void load_across(unsigned (&even)[2], unsigned (&odd)[2], const float* tile, int pitch, int t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float2 two = *reinterpret_cast<const float2*>(tile + (t + 4 * i) * pitch);
        even[i] = to_tf32(two.x);
        odd[i] = to_tf32(two.y);
    }
}

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_m16n8k8_tf32(d, a, b);
}
#else
// What a lane holds of a fragment: terms 2t, 2t + 1 in a register and 2t + 8, 2t + 9 in the next.
__device__ __forceinline__ void load_along(unsigned (&pair)[2], const Value* line, int t) {
    pair[0] = *reinterpret_cast<const unsigned*>(line + 2 * t);
    pair[1] = *reinterpret_cast<const unsigned*>(line + 2 * t + 8);
}

// The same for two neighbouring lines of a factor that lies across the sum: words hold both lines, registers two terms.
__device__ __forceinline__ void load_across(unsigned (&even)[2], unsigned (&odd)[2], const Value* tile, int pitch, int t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const unsigned first = *reinterpret_cast<const unsigned*>(tile + (2 * t + 8 * i) * pitch);
        const unsigned second = *reinterpret_cast<const unsigned*>(tile + (2 * t + 8 * i + 1) * pitch);
        even[i] = (first & 0xffffu) | (second << 16);
        odd[i] = (first >> 16) | (second & 0xffff0000u);
    }
}

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(PRECISION_FLOAT16)
    mma_m16n8k16_float16(d, a, b);
#else
    mma_m16n8k16_bfloat16(d, a, b);
#endif
}
#endif

// A warp's 16 x 16 squares of a tile, each two fragments wide. Which lines of a square a fragment takes is free, as long as the
// sums are put where they belong: neighbours, where a word of shared memory holds neighbours.
template <int ROWS, int COLUMNS, bool LEFT_ALONG, bool RIGHT_ALONG>
struct MatrixMultiplier {
    static constexpr int DEPTH = 2 * FRAGMENT_DEPTH;
    using Tile = ::Tile<ROWS, COLUMNS, DEPTH, LEFT_ALONG, RIGHT_ALONG, 8, SHARED_BUDGET>;
    static constexpr int WARPS_DOWN = Tile::GROUP == 32 ? 1 : 2;
    static constexpr int WARPS_ACROSS = Tile::GROUP / 32 / WARPS_DOWN;
    static constexpr int WARP_ROWS = ROWS / WARPS_DOWN, WARP_COLUMNS = COLUMNS / WARPS_ACROSS;
    static constexpr int SQUARES_DOWN = WARP_ROWS / 16, SQUARES_ACROSS = WARP_COLUMNS / 16;
    static constexpr int NUM_FRAGMENTS = SQUARES_DOWN * SQUARES_ACROSS * 2;
    static constexpr int NUM_SUMS = NUM_FRAGMENTS * 4;
    // Sums that are neighbours in a row: of both fragments of a square, or of one.
    static constexpr int NEIGHBOURS = RIGHT_ALONG ? 2 : 4;
    float sums[NUM_SUMS];
    int first_row, first_column, g, t;

    __device__ __forceinline__ explicit MatrixMultiplier(int thread) {
        const int warp = thread / 32, lane = thread % 32;
        first_row = warp / WARPS_ACROSS * WARP_ROWS;
        first_column = warp % WARPS_ACROSS * WARP_COLUMNS;
        g = lane / 4;
        t = lane % 4;
#pragma unroll
        for (int i = 0; i < NUM_SUMS; ++i) sums[i] = 0.0f;
    }

    __device__ __forceinline__ int row(int i) const {
        const int square = i / (SQUARES_ACROSS * 8), lower = i / 2 % 2;
        return first_row + square * 16 + (LEFT_ALONG ? g + 8 * lower : 2 * g + lower);
    }

    __device__ __forceinline__ int column(int i) const {
        const int square = i / 8 % SQUARES_ACROSS, second = i / 4 % 2, odd = i % 2;
        return first_column + square * 16 + (RIGHT_ALONG ? 8 * second + 2 * t + odd : 4 * t + 2 * odd + second);
    }

    // The sum at place j of a run of neighbours.
    static __device__ __forceinline__ int neighbour(int run, int j) {
        return RIGHT_ALONG ? run * 2 + j : run / 2 * 8 + run % 2 * 2 + j % 2 * 4 + j / 2;
    }

    // Two fragments' lines of a square: along the sum g and g + 8, across it 2g and 2g + 1.
    template <bool ALONG, int PITCH>
    __device__ __forceinline__ void load(unsigned (&one)[2], unsigned (&other)[2], const Value* tile, int line, int term) const {
        if constexpr (ALONG) {
            load_along(one, tile + (line + g) * PITCH + term, t);
            load_along(other, tile + (line + g + 8) * PITCH + term, t);
        } else {
            load_across(one, other, tile + term * PITCH + line + 2 * g, PITCH, t);
        }
    }

    // Adds `count` terms, and zeros up to whole fragments.
    __device__ __forceinline__ void add(const Value* left, const Value* right, int count) {
#pragma unroll
        for (int term = 0; term < DEPTH; term += FRAGMENT_DEPTH) {
            if (term >= count) break;
            unsigned a[SQUARES_DOWN][4];
#pragma unroll
            for (int i = 0; i < SQUARES_DOWN; ++i) {
                unsigned upper[2], lower[2];
                load<LEFT_ALONG, Tile::LEFT_PITCH>(upper, lower, left, first_row + i * 16, term);
                a[i][0] = upper[0], a[i][1] = lower[0], a[i][2] = upper[1], a[i][3] = lower[1];
            }
#pragma unroll
            for (int j = 0; j < SQUARES_ACROSS; ++j) {
                unsigned b[2][2];
                load<RIGHT_ALONG, Tile::RIGHT_PITCH>(b[0], b[1], right, first_column + j * 16, term);
#pragma unroll
                for (int i = 0; i < SQUARES_DOWN; ++i) {
#pragma unroll
                    for (int second = 0; second < 2; ++second) {
                        float(&d)[4] = *reinterpret_cast<float(*)[4]>(sums + ((i * SQUARES_ACROSS + j) * 2 + second) * 4);
                        multiply(d, a[i], b[second]);
                    }
                }
            }
        }
    }
};
