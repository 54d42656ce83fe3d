// Products of tiles on tensor cores, sums in float32: tf32, float16 and bfloat16.
#include "dense_fragment.cuh"
#include "dense_tile.cuh"

constexpr int SHARED_BUDGET = 96 * 1024;

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(PRECISION_TF32)
    mma_m16n8k8_tf32(d, a, b);
#elif defined(PRECISION_FLOAT16)
    mma_m16n8k16_float16(d, a, b);
#else
    mma_m16n8k16_bfloat16(d, a, b);
#endif
}

// A warp's 16 x 16 squares of a tile, each two fragments wide.
template <int ROWS, int COLUMNS, bool LEFT_ALONG, bool RIGHT_ALONG>
struct MatrixMultiplier {
    // A square tile of 64 has few products a step, so its steps are longer.
    static constexpr int DEPTH = (ROWS == 64 ? 4 : 2) * FRAGMENT_DEPTH;
    using Tile = ::Tile<ROWS, COLUMNS, DEPTH, LEFT_ALONG, RIGHT_ALONG, 8, SHARED_BUDGET>;
    using Left = Fragments<true, LEFT_ALONG, Tile::LEFT_PITCH>;
    using Right = Fragments<false, RIGHT_ALONG, Tile::RIGHT_PITCH>;
    static constexpr int WARPS_DOWN = Tile::GROUP == 32 ? 1 : 2;
    static constexpr int WARPS_ACROSS = Tile::GROUP / 32 / WARPS_DOWN;
    static constexpr int WARP_ROWS = ROWS / WARPS_DOWN, WARP_COLUMNS = COLUMNS / WARPS_ACROSS;
    static constexpr int SQUARES_DOWN = WARP_ROWS / 16, SQUARES_ACROSS = WARP_COLUMNS / 16;
    static constexpr int NUM_SUMS = SQUARES_DOWN * SQUARES_ACROSS * 8;
    // Sums that are neighbours in a row: of both fragments of a square, or of one.
    static constexpr int NEIGHBOURS = Right::INTERLEAVED ? 4 : 2;
    float sums[NUM_SUMS];
    int first_row, first_column, g, t, left_place, right_place;

    __device__ __forceinline__ explicit MatrixMultiplier(int thread) {
        const int warp = thread / 32, lane = thread % 32;
        first_row = warp / WARPS_ACROSS * WARP_ROWS;
        first_column = warp % WARPS_ACROSS * WARP_COLUMNS;
        g = lane / 4;
        t = lane % 4;
        left_place = Left::place(first_row, 0) + Left::place_of_lane(lane);
        right_place = Right::place(first_column, 0) + Right::place_of_lane(lane);
        keep_in_register(left_place);
        keep_in_register(right_place);
#pragma unroll
        for (int i = 0; i < NUM_SUMS; ++i) sums[i] = 0.0f;
    }

    __device__ __forceinline__ int row(int i) const {
        const int square = i / (SQUARES_ACROSS * 8), second = i / 2 % 2;
        return first_row + square * 16 + Left::line(second, g);
    }

    __device__ __forceinline__ int column(int i) const {
        const int square = i / 8 % SQUARES_ACROSS, second = i / 4 % 2, odd = i % 2;
        return first_column + square * 16 + Right::line(second, 2 * t + odd);
    }

    // The sum at place j of a run of neighbours.
    static __device__ __forceinline__ int neighbour(int run, int j) {
        return Right::INTERLEAVED ? run / 2 * 8 + run % 2 * 2 + j % 2 * 4 + j / 2 : run * 2 + j;
    }

    // Adds `count` terms, and zeros up to whole fragments.
    template <int MOST = DEPTH / FRAGMENT_DEPTH>
    __device__ __forceinline__ void add(const Value* left, const Value* right, int count) {
        if constexpr (MOST > 1) {
            if (count <= (MOST - 1) * FRAGMENT_DEPTH) return add<MOST - 1>(left, right, count);
        }
        add_fragments<MOST>(left + left_place, right + right_place);
    }

    // Loads of all fragments before products, so that the assembler may have some of them run ahead.
    template <int NUM>
    __device__ __forceinline__ void add_fragments(const Value* left, const Value* right) {
        unsigned a[NUM][SQUARES_DOWN][4], b[NUM][SQUARES_ACROSS][4];
#pragma unroll
        for (int k = 0; k < NUM; ++k) {
            const int term = k * FRAGMENT_DEPTH;
#pragma unroll
            for (int i = 0; i < SQUARES_DOWN; ++i) Left::load(a[k][i], left + Left::place(i * 16, term));
#pragma unroll
            for (int j = 0; j < SQUARES_ACROSS; ++j) Right::load(b[k][j], right + Right::place(j * 16, term));
        }
#pragma unroll
        for (int k = 0; k < NUM; ++k) {
#pragma unroll
            for (int i = 0; i < SQUARES_DOWN; ++i) {
#pragma unroll
                for (int j = 0; j < SQUARES_ACROSS; ++j) {
                    float* const d = sums + (i * SQUARES_ACROSS + j) * 8;
                    multiply(*reinterpret_cast<float(*)[4]>(d), a[k][i], {b[k][j][0], b[k][j][1]});
                    multiply(*reinterpret_cast<float(*)[4]>(d + 4), a[k][i], {b[k][j][2], b[k][j][3]});
                }
            }
        }
    }
};
