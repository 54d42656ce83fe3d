// Many steps in one launch: the launches of a step, one after another, by thread blocks that stay.
//
// PHASES are those launches: of each, a function that a kernel calls, with or without a place as its first parameter.
// One with a place is called for every place of its grid, which the thread blocks take in turn. One without shares its work
// out itself. Between two phases all thread blocks wait for each other, as they do between two launches.
#include "fused.cuh"
#include "grid.cuh"
#include "reduce.cuh"
#include "update.cuh"

#if defined(DDPGD_HAS_PRODUCTS)

// The functions of kernels, by the kernels' names. Templates, so that none is made that is not asked for.
namespace phase {
template <int ROWS, int COLUMNS>
constexpr auto forward = &::forward_matrix<Multiplier<ROWS, COLUMNS, true, false>>;
template <int ROWS, int COLUMNS>
constexpr auto input = &::input<Multiplier<ROWS, COLUMNS, true, true>>;
template <int ROWS, int COLUMNS>
constexpr auto gather_forward = &::gather_forward<Multiplier<ROWS, COLUMNS, true, false>>;
template <int ROWS, int COLUMNS>
constexpr auto params_of_layers = &::params_of_layers<Multiplier<ROWS, COLUMNS, false, false>>;
template <int = 0>
constexpr auto head_cross_entropy = &::head<CrossEntropy>;
template <int = 0>
constexpr auto head_mean_squared_error = &::head<MeanSquaredError>;
template <int = 0>
constexpr auto add = &::add_vectors;
template <int = 0>
constexpr auto tree_sum = &::sum_tree;
}  // namespace phase
#define KERNEL(name, R)                                         \
    namespace phase {                                           \
    template <int = 0>                                          \
    constexpr auto decide_and_##name = &::decide_and_update<R>; \
    }
#include "rules.cuh"

// Those of a network of two layers, where nothing else is asked for.
#if !defined(PHASES)
#define PHASES                                                                                   \
    phase::gather_forward<16, 16>, phase::head_cross_entropy<>, phase::params_of_layers<32, 32>, \
        phase::decide_and_momentum<>
#endif

template <int... I>
struct Numbers {};
template <int N, int... I>
struct UpTo : UpTo<N - 1, N - 1, I...> {};
template <int... I>
struct UpTo<0, I...> {
    using Type = Numbers<I...>;
};

// The words of a phase: thread blocks of its grid in x, in y, and in all; then its arguments, a word each.
constexpr int GRID_WORDS = 3;

template <auto RUN, class Function = decltype(RUN)>
struct Phase;

template <auto RUN, class... A>
struct Phase<RUN, void (*)(const Place&, A...)> {
    static constexpr int NUM_WORDS = GRID_WORDS + sizeof...(A);

    static __device__ __forceinline__ void play(const long long* words) { play(words, typename UpTo<sizeof...(A)>::Type()); }

    template <int... I>
    static __device__ __forceinline__ void play(const long long* words, Numbers<I...>)
    {
        const int num_x = words[0], num_y = words[1], number = words[2];
#pragma unroll 1
        for (int at = blockIdx.x; at < number; at += gridDim.x) {
            const Place place = {at % num_x, at / num_x % num_y, at / num_x / num_y, num_x};
            RUN(place, *reinterpret_cast<const A*>(words + GRID_WORDS + I)...);
            __syncthreads();  // the next place uses the same shared memory
        }
    }
};

template <auto RUN, class... A>
struct Phase<RUN, void (*)(A...)> {
    static constexpr int NUM_WORDS = GRID_WORDS + sizeof...(A);

    static __device__ __forceinline__ void play(const long long* words) { play(words, typename UpTo<sizeof...(A)>::Type()); }

    template <int... I>
    static __device__ __forceinline__ void play(const long long* words, Numbers<I...>)
    {
        RUN(*reinterpret_cast<const A*>(words + GRID_WORDS + I)...);
    }
};

// Plays a phase, waits for all thread blocks, and returns where the words of the next are.
template <class P>
__device__ __forceinline__ const long long* play_and_wait(const long long* words, unsigned* barrier)
{
    P::play(words);
    grid_barrier(barrier);
    return words + P::NUM_WORDS;
}

template <class... P>
__device__ __forceinline__ void play_steps(const long long* program, int num_steps, unsigned* barrier)
{
    constexpr int NUM_WORDS = (P::NUM_WORDS + ...);
    __shared__ long long words[NUM_WORDS];
    for (int i = threadIdx.x; i < NUM_WORDS; i += NUM_THREADS) words[i] = program[i];
    __syncthreads();
#pragma unroll 1
    for (int step = 0; step < num_steps; ++step) {
        const long long* at = words;
        ((at = play_and_wait<P>(at, barrier)), ...);
    }
}

template <auto... RUN>
struct Steps {
    static __device__ __forceinline__ void play(const long long* program, int num_steps, int* barrier)
    {
        play_steps<Phase<RUN>...>(program, num_steps, reinterpret_cast<unsigned*>(barrier));
    }
};

// program: the words of all phases. barrier: a word that is 0 before the first launch, for grid_barrier.
extern "C" __global__ void __launch_bounds__(NUM_THREADS, 1) persistent(
    const long long* program, int num_steps, int* barrier)
{
    Steps<PHASES>::play(program, num_steps, barrier);
}

#endif
