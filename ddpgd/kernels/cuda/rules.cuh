// The update rules, and KERNEL(name, its struct) for each.

struct Sgd : Rule {
    static constexpr int NUM_VECTORS = 0;

    using Rule::Rule;

    __device__ float direction(float g, float*) const { return g; }
};
KERNEL(sgd, Sgd)

struct Momentum : Rule {
    static constexpr int NUM_VECTORS = 1;
    float momentum;

    __device__ explicit Momentum(const Words& words) : Rule(words), momentum(words.hyper[0]) {}

    __device__ float direction(float g, float* state) const
    {
        return state[0] = __fadd_rn(__fmul_rn(momentum, state[0]), g);
    }
};
KERNEL(momentum, Momentum)

struct Nesterov : Momentum {
    using Momentum::Momentum;

    __device__ float direction(float g, float* state) const
    {
        return __fadd_rn(g, __fmul_rn(momentum, Momentum::direction(g, state)));
    }
};
KERNEL(nesterov, Nesterov)

struct Adam : Rule {
    static constexpr int NUM_VECTORS = 2;
    float unbias, keep1, take1, keep2, take2, epsilon;

    __device__ explicit Adam(const Words& words)
        : Rule(words), keep1(words.hyper[0]), take1(1 - words.hyper[0]), keep2(words.hyper[1]),
          take2(1 - words.hyper[1]), epsilon(words.hyper[2])
    {
        // Powers in double are slow on most devices: one thread takes them for its block.
        __shared__ float shared_lr, shared_unbias;
        if (threadIdx.x == 0) {
            shared_lr = words.lr / (1 - pow(words.hyper[0], words.number));
            shared_unbias = 1 / sqrt(1 - pow(words.hyper[1], words.number));
        }
        __syncthreads();
        lr = shared_lr;
        unbias = shared_unbias;
    }

    __device__ float direction(float g, float* state) const
    {
        state[0] = __fadd_rn(__fmul_rn(keep1, state[0]), __fmul_rn(take1, g));
        state[1] = __fadd_rn(__fmul_rn(keep2, state[1]), __fmul_rn(take2, __fmul_rn(g, g)));
        return state[0] / __fadd_rn(__fmul_rn(sqrtf(state[1]), unbias), epsilon);
    }
};
KERNEL(adam, Adam)

struct AdamW : Adam {
    static constexpr bool DECOUPLED = true;

    using Adam::Adam;
};
KERNEL(adamw, AdamW)

struct RmsProp : Rule {
    static constexpr int NUM_VECTORS = 1;
    float keep, take, epsilon;

    __device__ explicit RmsProp(const Words& words)
        : Rule(words), keep(words.hyper[0]), take(1 - words.hyper[0]), epsilon(words.hyper[1])
    {
    }

    __device__ float direction(float g, float* state) const
    {
        state[0] = __fadd_rn(__fmul_rn(keep, state[0]), __fmul_rn(take, __fmul_rn(g, g)));
        return g / __fadd_rn(sqrtf(state[0]), epsilon);
    }
};
KERNEL(rmsprop, RmsProp)

struct Lion : Rule {
    static constexpr int NUM_VECTORS = 1;
    static constexpr bool DECOUPLED = true;
    float share, keep, take;  // share: of the momentum beside a gradient of 1, in the sign

    __device__ explicit Lion(const Words& words)
        : Rule(words), share(words.hyper[0] / (1 - words.hyper[0])), keep(words.hyper[1]), take(1 - words.hyper[1])
    {
    }

    __device__ float direction(float g, float* state) const
    {
        const float mixed = __fadd_rn(__fmul_rn(share, state[0]), g);
        state[0] = __fadd_rn(__fmul_rn(keep, state[0]), __fmul_rn(take, g));
        return (mixed > 0) - (mixed < 0);
    }
};
KERNEL(lion, Lion)
