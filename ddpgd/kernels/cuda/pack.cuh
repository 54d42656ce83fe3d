// Several neighbouring elements: one memory access where they lie aligned and whole, else one by one.

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
    T at[N];
};

template <int N, class T>
__device__ __forceinline__ bool is_aligned(const T* pointer)
{
    return reinterpret_cast<size_t>(pointer) % alignof(Pack<T, N>) == 0;
}

// values[first : first + N], and zeros from `end` on.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* values, long long first, long long end)
{
    const T* from = values + first;
    if (first + N <= end && is_aligned<N>(from)) return *reinterpret_cast<const Pack<T, N>*>(from);
    Pack<T, N> pack;
#pragma unroll
    for (int j = 0; j < N; ++j) pack.at[j] = first + j < end ? from[j] : T{};
    return pack;
}

// values[first : first + N] = pack, nothing from `end` on.
template <int N, class T>
__device__ __forceinline__ void store(const Pack<T, N>& pack, T* values, long long first, long long end)
{
    T* to = values + first;
    if (first + N <= end && is_aligned<N>(to)) {
        *reinterpret_cast<Pack<T, N>*>(to) = pack;
        return;
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
        if (first + j < end) to[j] = pack.at[j];
    }
}
