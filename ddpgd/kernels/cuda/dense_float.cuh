// Products of tiles in float32: every term of a sum is one fused multiply-add.
#include "dense_tile.cuh"

constexpr int SHARED_BUDGET = 64 * 1024;

// A thread's rows and columns of a tile. A factor that lies along the sum is read four terms at a time, from rows that are
// as far apart as there are threads; the other, four neighbours at a time.
template <int ROWS, int COLUMNS, bool LEFT_ALONG, bool RIGHT_ALONG>
struct FloatMultiplier {
    static constexpr int DEPTH = ROWS == 32 ? 8 : 16;
    using Tile = ::Tile<ROWS, COLUMNS, DEPTH, LEFT_ALONG, RIGHT_ALONG, 0, SHARED_BUDGET>;
    static constexpr int LANES_ACROSS = COLUMNS == 8 ? 4 : 8;
    static constexpr int LANES_DOWN = 32 / LANES_ACROSS;
    static constexpr int THREAD_ROWS = Tile::GROUP == 32 ? LANES_DOWN : 16;
    static constexpr int THREAD_COLUMNS = Tile::GROUP / THREAD_ROWS;
    static constexpr int NUM_ROWS = ROWS / THREAD_ROWS;
    static constexpr int NUM_COLUMNS = COLUMNS / THREAD_COLUMNS;
    static constexpr int NUM_SUMS = NUM_ROWS * NUM_COLUMNS;
    // Sums that are neighbours in a row.
    static constexpr int NEIGHBOURS = RIGHT_ALONG || NUM_COLUMNS < 4 ? 1 : 4;
    float sums[NUM_SUMS];
    int thread_row, thread_column;

    __device__ __forceinline__ explicit FloatMultiplier(int thread) {
        const int warp = thread / 32, lane = thread % 32;
        constexpr int WARPS_ACROSS = THREAD_COLUMNS / LANES_ACROSS;
        thread_row = warp / WARPS_ACROSS * LANES_DOWN + lane / LANES_ACROSS;
        thread_column = warp % WARPS_ACROSS * LANES_ACROSS + lane % LANES_ACROSS;
#pragma unroll
        for (int i = 0; i < NUM_SUMS; ++i) sums[i] = 0.0f;
    }

    template <bool ALONG, int COUNT, int NUM_LANES>
    static __device__ __forceinline__ int place(int i, int lane) {
        constexpr int WIDTH = COUNT < 4 ? COUNT : 4;
        return ALONG ? lane + i * NUM_LANES : i / WIDTH * WIDTH * NUM_LANES + lane * WIDTH + i % WIDTH;
    }

    __device__ __forceinline__ int row(int i) const {
        return place<LEFT_ALONG, NUM_ROWS, THREAD_ROWS>(i / NUM_COLUMNS, thread_row);
    }

    __device__ __forceinline__ int column(int i) const {
        return place<RIGHT_ALONG, NUM_COLUMNS, THREAD_COLUMNS>(i % NUM_COLUMNS, thread_column);
    }

    // The sum at place j of a run of neighbours.
    static __device__ __forceinline__ int neighbour(int run, int j) { return run * NEIGHBOURS + j; }

    template <bool ALONG, int COUNT, int NUM_LANES, int PITCH>
    static __device__ __forceinline__ void load(float (&values)[4][COUNT], const float* tile, int term, int lane) {
        if constexpr (ALONG) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) {
                const float4 four =
                    *reinterpret_cast<const float4*>(tile + place<true, COUNT, NUM_LANES>(i, lane) * PITCH + term);
                values[0][i] = four.x, values[1][i] = four.y, values[2][i] = four.z, values[3][i] = four.w;
            }
        } else {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float* const line = tile + (term + k) * PITCH;
                if constexpr (COUNT >= 4) {
#pragma unroll
                    for (int i = 0; i < COUNT; i += 4) {
                        const float4 four =
                            *reinterpret_cast<const float4*>(line + place<false, COUNT, NUM_LANES>(i, lane));
                        values[k][i] = four.x, values[k][i + 1] = four.y, values[k][i + 2] = four.z,
                        values[k][i + 3] = four.w;
                    }
                } else {
                    static_assert(COUNT == 2, "two or whole fours");
                    const float2 two = *reinterpret_cast<const float2*>(line + lane * 2);
                    values[k][0] = two.x, values[k][1] = two.y;
                }
            }
        }
    }

    // Adds `count` terms, and zeros up to whole fours.
    __device__ __forceinline__ void add(const float* left, const float* right, int count) {
#pragma unroll 2
        for (int term = 0; term < count; term += 4) {
            float a[4][NUM_ROWS], b[4][NUM_COLUMNS];
            load<LEFT_ALONG, NUM_ROWS, THREAD_ROWS, Tile::LEFT_PITCH>(a, left, term, thread_row);
            load<RIGHT_ALONG, NUM_COLUMNS, THREAD_COLUMNS, Tile::RIGHT_PITCH>(b, right, term, thread_column);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
#pragma unroll
                for (int i = 0; i < NUM_SUMS; ++i) {
                    sums[i] = fmaf(a[k][i / NUM_COLUMNS], b[k][i % NUM_COLUMNS], sums[i]);
                }
            }
        }
    }
};
