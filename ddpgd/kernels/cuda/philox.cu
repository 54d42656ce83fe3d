// The raw words of a random stream, four a thread.
#include "philox.cuh"

extern "C" __global__ void __launch_bounds__(256) random_words(
    const unsigned long long* key, unsigned long long* out, long long n)
{
    const long long block = 256LL * blockIdx.x + threadIdx.x;
    if (4 * block >= n) return;
    const Words words = philox(key, block);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if (4 * block + j < n) out[4 * block + j] = words.at[j];
    }
}
