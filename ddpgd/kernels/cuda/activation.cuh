// Activations and their slopes, as numbers that the binding passes to kernels.

enum Activation { RELU = 0, TANH = 1, SIGMOID = 2, IDENTITY = 3 };

// A NaN stays one: fmaxf would hide it.
__device__ __forceinline__ float activate(float z, int activation) {
    if (activation == RELU) return z <= 0.0f ? 0.0f : z;
    if (activation == IDENTITY) return z;
    const float y = tanhf(activation == SIGMOID ? 0.5f * z : z);
    return activation == SIGMOID ? fmaf(0.5f, y, 0.5f) : y;
}

// The slope where the activation put out `y`.
__device__ __forceinline__ float slope(float y, int activation) {
    if (activation == RELU) return y > 0.0f ? 1.0f : 0.0f;
    if (activation == TANH) return fmaf(-y, y, 1.0f);
    if (activation == SIGMOID) return (1.0f - y) * y;
    return 1.0f;
}
