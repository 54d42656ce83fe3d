// The multiplier of tiles that a precision has. Below sm_80 there are no tensor cores, and no kernels that would want them.
#if defined(PRECISION_FLOAT32)
#include "dense_float.cuh"
template <int ROWS, int COLUMNS, bool LEFT_ALONG, bool RIGHT_ALONG>
using Multiplier = FloatMultiplier<ROWS, COLUMNS, LEFT_ALONG, RIGHT_ALONG>;
#define DDPGD_HAS_PRODUCTS
#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#include "dense_mma.cuh"
template <int ROWS, int COLUMNS, bool LEFT_ALONG, bool RIGHT_ALONG>
using Multiplier = MatrixMultiplier<ROWS, COLUMNS, LEFT_ALONG, RIGHT_ALONG>;
#define DDPGD_HAS_PRODUCTS
#endif
