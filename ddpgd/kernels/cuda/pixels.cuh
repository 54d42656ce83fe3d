// Samples as the left factor of the first layer's product: pixels, picked where they lie, become values on their way.
#include "dense_copy.cuh"
#include "words.cuh"

__device__ __forceinline__ Value normalised(unsigned char pixel, float factor, float shift)
{
    return to_value(__fsub_rn(__fmul_rn(static_cast<float>(pixel), factor), shift));
}

// Rows [first, end) of a batch. values (R, K): where the normalised pixels go too; null: nowhere.
struct PixelRows {
    const unsigned char* images;
    const long long* samples;
    float factor, shift;
    Value* values;
    int pitch, first, end;

    template <bool ALONG, int WIDTH, int DEPTH, int PITCH, int GROUP>
    struct Copier;
};

// As `Copier`; a thread's piece of bytes waits in the first bytes of the place where its piece of values will lie.
template <bool ALONG, int WIDTH, int DEPTH, int PITCH, int GROUP>
struct PixelRows::Copier {
    static_assert(ALONG, "pixels of a sample are neighbours");
    static constexpr int LINE_PIECES = DEPTH / PIECE;
    static constexpr int LINE_STEP = GROUP / LINE_PIECES;
    static constexpr int NUM_PIECES = WIDTH / LINE_STEP;
    static_assert(GROUP % LINE_PIECES == 0 && WIDTH % LINE_STEP == 0, "every thread copies as many pieces");
    const PixelRows& rows;
    const unsigned char* lines[NUM_PIECES];
    int line, place;
    bool in_pieces;

    __device__ __forceinline__ Copier(const PixelRows& rows, int thread)
        : rows(rows), line(thread / LINE_PIECES), place(thread % LINE_PIECES * PIECE), in_pieces(rows.pitch % PIECE == 0)
    {
#pragma unroll
        for (int i = 0; i < NUM_PIECES; ++i) {
            const int row = rows.first + line + i * LINE_STEP;
            lines[i] = rows.images + (row < rows.end ? rows.samples[row] * rows.pitch : 0);
        }
    }

    __device__ __forceinline__ bool has(int i) const { return rows.first + line + i * LINE_STEP < rows.end; }

    __device__ __forceinline__ void copy(Value* tile, int term, int term_end) const
    {
        if (!in_pieces) return;
        Value* const to = tile + line * PITCH + place;
#pragma unroll
        for (int i = 0; i < NUM_PIECES; ++i) {
            const bool valid = has(i) && term + place < term_end;
            copy_piece<PIECE>(to + i * LINE_STEP * PITCH, lines[i] + term + place, valid);
        }
    }

    __device__ __forceinline__ void finish(Value* tile, int term, int term_end) const
    {
#pragma unroll
        for (int i = 0; i < NUM_PIECES; ++i) {
            Value* const to = tile + (line + i * LINE_STEP) * PITCH + place;
            // Values of this piece. The other factor has zeros where more terms would be.
            const int count = has(i) ? term_end - term - place : 0;
            Pack<unsigned char, PIECE> bytes;
            if (in_pieces) {
                bytes = *reinterpret_cast<const Pack<unsigned char, PIECE>*>(to);
            } else {
#pragma unroll
                for (int j = 0; j < PIECE; ++j) bytes.at[j] = j < count ? lines[i][term + place + j] : 0;
            }
            Pack<Value, PIECE> values;
#pragma unroll
            for (int j = 0; j < PIECE; ++j) values.at[j] = normalised(bytes.at[j], rows.factor, rows.shift);
            *reinterpret_cast<Pack<Value, PIECE>*>(to) = values;
            if (rows.values == nullptr || count <= 0) continue;
            const long long row = rows.first + line + i * LINE_STEP;
            store<PIECE>(values, rows.values + row * rows.pitch, term + place, term + place + min(count, PIECE));
        }
    }
};

// The inputs of a network (R, K). values: where they go too; null: nowhere.
struct Pixels {
    const unsigned char* images;
    const long long* samples;
    float factor, shift;
    Value* values;
    int num_columns;

    __device__ __forceinline__ PixelRows rows(int first, int end) const
    {
        return {images, samples, factor, shift, values, num_columns, first, end};
    }
};
