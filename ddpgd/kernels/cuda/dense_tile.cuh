// A tile of a product, whatever multiplies: slices of the sum, copies that run ahead of the arithmetic, results in order.
//
// The law of the bits: a sum of `length` terms is cut into slices of slice_length(length) terms. Each slice is summed on its
// own, terms ascending, from +0; then slices are added, ascending. Tile, grid and the rows beside do not enter.
#include "dense_copy.cuh"
#include "pack.cuh"
#include "place.cuh"

constexpr int NUM_THREADS = 256;
constexpr int NUM_SLICES = 8;
constexpr int SLICE_UNIT = 16;
constexpr int MOST_STAGES = 4;
// Added to anything it changes nothing, unlike +0, which makes +0 of -0.
constexpr float NO_SLICES = -0.0f;

__device__ __forceinline__ int slice_length(int length) {
    constexpr int UNITS = NUM_SLICES * SLICE_UNIT;
    return (length + UNITS - 1) / UNITS * SLICE_UNIT;
}

// Rows x columns of a block, or, where GROUP is a warp, of each of its warps, of which each sums a slice of its own.
// A factor lies ALONG when its terms of one sum are neighbours in memory. SPREAD keeps the other layout free of bank conflicts.
template <int ROWS_, int COLUMNS_, int DEPTH_, bool LEFT_ALONG_, bool RIGHT_ALONG_, int SPREAD, int BUDGET>
struct Tile {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = DEPTH_;
    static constexpr bool LEFT_ALONG = LEFT_ALONG_, RIGHT_ALONG = RIGHT_ALONG_;
    static constexpr int GROUP = ROWS * COLUMNS <= 1024 ? 32 : NUM_THREADS;
    static constexpr int NUM_GROUPS = NUM_THREADS / GROUP;
    static constexpr int LEFT_PITCH = LEFT_ALONG ? DEPTH + PIECE : ROWS + SPREAD;
    static constexpr int RIGHT_PITCH = RIGHT_ALONG ? DEPTH + PIECE : COLUMNS + SPREAD;
    static constexpr int LEFT_SIZE = LEFT_PITCH * (LEFT_ALONG ? ROWS : DEPTH);
    static constexpr int STAGE_SIZE = LEFT_SIZE + RIGHT_PITCH * (RIGHT_ALONG ? COLUMNS : DEPTH);
    static constexpr int FITTING = BUDGET / (STAGE_SIZE * NUM_GROUPS * static_cast<int>(sizeof(Value)));
    static constexpr int STAGES = FITTING < MOST_STAGES ? FITTING : MOST_STAGES;
    static_assert(STAGES >= 2, "no room to copy ahead");
    static_assert(NUM_GROUPS == 1 || NUM_GROUPS == NUM_SLICES, "a group sums all slices or one");
};

// Walks the terms [at, last) by DEPTH, but never over the end of a slice.
template <int DEPTH>
struct Walk {
    int at, slice_end, slice, last;

    __device__ __forceinline__ Walk(int first, int last, int slice)
        : at(first), slice_end(min(first + slice, last)), slice(slice), last(last) {}

    __device__ __forceinline__ int count() const { return min(DEPTH, slice_end - at); }
    __device__ __forceinline__ bool ends_slice() const { return at + DEPTH >= slice_end; }

    __device__ __forceinline__ void advance() {
        if (ends_slice()) {
            at = slice_end;
            slice_end = min(slice_end + slice, last);
        } else {
            at += DEPTH;
        }
    }
};

template <int GROUP>
__device__ __forceinline__ void synchronize_group() {
    if (GROUP == 32) {
        __syncwarp();
    } else {
        __syncthreads();
    }
}

// What becomes of the sums of slices that different warps hold: they meet in shared memory.
template <class Tile, class Multiplier, bool WITH_COLUMNS, class Epilogue, class StoreColumn>
__device__ __forceinline__ void add_slices(const Multiplier& multiplier, float column_sum, int num_slices,
                                           const Epilogue& epilogue, StoreColumn store_column) {
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    constexpr int SIZE = Tile::ROWS * Tile::COLUMNS;
    float* const slices = reinterpret_cast<float*>(shared_bytes);
    float* const column_slices = slices + NUM_SLICES * SIZE;
    const int number = thread_of_block(), group = number / Tile::GROUP, thread = number % Tile::GROUP;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < Multiplier::NUM_SUMS; ++i) {
        slices[group * SIZE + multiplier.row(i) * Tile::COLUMNS + multiplier.column(i)] = multiplier.sums[i];
    }
    if (WITH_COLUMNS && thread < Tile::COLUMNS) column_slices[group * Tile::COLUMNS + thread] = column_sum;
    __syncthreads();
    for (int i = number; i < SIZE; i += NUM_THREADS) {
        float sum = NO_SLICES;
        for (int slice = 0; slice < num_slices; ++slice) sum += slices[slice * SIZE + i];
        const int row = i / Tile::COLUMNS, column = i % Tile::COLUMNS;
        epilogue.store(row, column, Pack<float, 1>{{sum}}, epilogue.template beside<1>(row, column));
    }
    if (WITH_COLUMNS && number < Tile::COLUMNS) {
        float sum = NO_SLICES;
        for (int slice = 0; slice < num_slices; ++slice) sum += column_slices[slice * Tile::COLUMNS + number];
        store_column(number, sum);
    }
}

// Stores the sums of a thread, neighbours of a row together. What lies beside a batch of them is read before any is stored,
// since a store might, for all the compiler knows, change it.
template <class Multiplier, class Epilogue>
__device__ __forceinline__ void store_sums(const Multiplier& multiplier, const float (&sums)[Multiplier::NUM_SUMS],
                                           const Epilogue& epilogue) {
    constexpr int N = Multiplier::NEIGHBOURS, NUM_RUNS = Multiplier::NUM_SUMS / N;
    constexpr int BATCH = NUM_RUNS * N < 16 ? NUM_RUNS : 16 / N;
    static_assert(NUM_RUNS % BATCH == 0, "whole batches");
#pragma unroll
    for (int begin = 0; begin < NUM_RUNS; begin += BATCH) {
        decltype(epilogue.template beside<N>(0, 0)) beside[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const int first = Multiplier::neighbour(begin + i, 0);
            beside[i] = epilogue.template beside<N>(multiplier.row(first), multiplier.column(first));
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const int first = Multiplier::neighbour(begin + i, 0);
            Pack<float, N> run;
#pragma unroll
            for (int j = 0; j < N; ++j) run.at[j] = sums[Multiplier::neighbour(begin + i, j)];
            epilogue.store(multiplier.row(first), multiplier.column(first), run, beside[i]);
        }
    }
}

// Calls epilogue.store(row, column, sums, beside) for neighbouring sums of a row, each place of the tile once; beside is what
// epilogue.beside(row, column) has read. Calls store_column(column, sum of the right factor's terms).
template <class Multiplier, bool WITH_COLUMNS, class Left, class Epilogue, class StoreColumn>
__device__ __forceinline__ void product(const Left& left, const Factor& right, int length, bool with_columns,
                                        const Epilogue& epilogue, StoreColumn store_column) {
    using Tile = typename Multiplier::Tile;
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    constexpr bool SPLIT = Tile::NUM_GROUPS > 1;
    const int number = thread_of_block(), group = number / Tile::GROUP, thread = number % Tile::GROUP;
    Value* const buffers = reinterpret_cast<Value*>(shared_bytes) + group * Tile::STAGES * Tile::STAGE_SIZE;
    const int slice = slice_length(length);
    const int first = min(group * slice, length);
    const int last = SPLIT ? min(first + slice, length) : length;

    using LeftCopier = typename Left::template Copier<Tile::LEFT_ALONG, Tile::ROWS, Tile::DEPTH, Tile::LEFT_PITCH, Tile::GROUP>;
    const LeftCopier left_copier(left, thread);
    const Copier<Tile::RIGHT_ALONG, Tile::COLUMNS, Tile::DEPTH, Tile::RIGHT_PITCH, Tile::GROUP> right_copier(right, thread);
    Walk<Tile::DEPTH> ahead(first, last, slice);
    auto copy_next = [&](int stage) {
        if (ahead.at < last) {
            Value* const left_tile = buffers + stage * Tile::STAGE_SIZE;
            const int end = ahead.at + ahead.count();
            left_copier.copy(left_tile, ahead.at, end);
            right_copier.copy(left_tile + Tile::LEFT_SIZE, ahead.at, end);
            ahead.advance();
        }
        commit_pieces();
    };

    Multiplier multiplier(thread);
    float totals[SPLIT ? 1 : Multiplier::NUM_SUMS];
    float column_sum = 0.0f, column_total = NO_SLICES;
#pragma unroll
    for (int i = 0; i < (SPLIT ? 1 : Multiplier::NUM_SUMS); ++i) totals[i] = NO_SLICES;
    int stage = 0, free_stage = 0;
    Walk<Tile::DEPTH> walk(first, last, slice);
    // The copies are STAGES - 1 steps ahead. A barrier lies between the last use of a stage and the copy into it.
#pragma unroll 1
    for (int step = 1 - Tile::STAGES; walk.at < last; ++step) {
        if (step >= 0) {
            wait_for_pieces<Tile::STAGES - 2>();
            left_copier.finish(buffers + stage * Tile::STAGE_SIZE, walk.at, walk.at + walk.count());
            synchronize_group<Tile::GROUP>();
        }
        copy_next(free_stage);
        free_stage = free_stage + 1 == Tile::STAGES ? 0 : free_stage + 1;
        if (step < 0) continue;
        const Value* const left_tile = buffers + stage * Tile::STAGE_SIZE;
        const Value* const right_tile = left_tile + Tile::LEFT_SIZE;
        multiplier.add(left_tile, right_tile, walk.count());
        if (WITH_COLUMNS && with_columns && thread < Tile::COLUMNS) {
            for (int i = 0; i < walk.count(); ++i) column_sum += to_float(right_tile[i * Tile::RIGHT_PITCH + thread]);
        }
        if (!SPLIT && walk.ends_slice()) {
#pragma unroll
            for (int i = 0; i < (SPLIT ? 1 : Multiplier::NUM_SUMS); ++i) {
                totals[i] += multiplier.sums[i];
                multiplier.sums[i] = 0.0f;
            }
            column_total += column_sum;
            column_sum = 0.0f;
        }
        stage = stage + 1 == Tile::STAGES ? 0 : stage + 1;
        walk.advance();
    }

    if constexpr (SPLIT) {
        add_slices<Tile, Multiplier, WITH_COLUMNS>(multiplier, column_sum, (length + slice - 1) / slice, epilogue,
                                                   [&](int column, float sum) {
                                                       if (with_columns) store_column(column, sum);
                                                   });
    } else {
        store_sums(multiplier, totals, epilogue);
        if (WITH_COLUMNS && with_columns && thread < Tile::COLUMNS) store_column(thread, column_total);
    }
}
