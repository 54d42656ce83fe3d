// Philox 4x64-10, word for word the raw stream of NumPy that philox.py names by (seed, purpose, index).
// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.

struct Words {
    unsigned long long at[4];
};

// What the key's two words make of a counter.
__device__ __forceinline__ Words philox_rounds(unsigned long long key0, unsigned long long key1, Words words)
{
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long high0 = __umul64hi(0xD2E7470EE14C6C93ull, words.at[0]);
        const unsigned long long low0 = 0xD2E7470EE14C6C93ull * words.at[0];
        const unsigned long long high2 = __umul64hi(0xCA5A826395121157ull, words.at[2]);
        const unsigned long long low2 = 0xCA5A826395121157ull * words.at[2];
        words = {{high2 ^ words.at[1] ^ key0, low2, high0 ^ words.at[3] ^ key1, low0}};
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return words;
}

// Words 4 * block to 4 * block + 3 of the stream. key: seed, purpose, index. NumPy counts up before it makes a block.
__device__ __forceinline__ Words philox(const unsigned long long* key, unsigned long long block)
{
    return philox_rounds(key[0], key[1], {{block + 1, 0, key[2], 0}});
}

// The same of a sample in an epoch, as sample_words in philox.py.
__device__ __forceinline__ Words philox_of_sample(
    unsigned long long seed, unsigned long long purpose, long long epoch, long long sample, int part,
    unsigned long long block)
{
    const unsigned long long at[] = {
        static_cast<unsigned long long>(sample), static_cast<unsigned long long>(epoch),
        static_cast<unsigned long long>(part)};
    return philox_rounds(seed, purpose, {{block + 1, at[0], at[1], at[2]}});
}
