// The one place of inline PTX: products on tensor cores, loads of their factors, and copies to shared memory that do not wait.
//
// Below sm_80 there is neither: the functions compile, and stop the kernel. Fragments per the PTX ISA, with
// group = lane / 4 and member = lane % 4; a register packs two 16-bit elements, the lower index in the lower half.
//
//   m16n8k8 tf32      a[r]: row group + 8 (r % 2), k = member + 4 (r / 2)
//                     b[r]: k = member + 4 r, column group
//   m16n8k16 16 bits  a[r]: row group + 8 (r % 2), k = 2 member + 8 (r / 2) + {0, 1}
//                     b[r]: k = 2 member + 8 r + {0, 1}, column group
//   all               d[i]: row group + 8 (i / 2), column 2 member + i % 2
//
// A matrix that is loaded has 8 rows of 16 bytes; lane 8 r + i names row i of the one that goes to register r:
//
//   as it lies        r: row group, 4 bytes 4 member
//   transposed        r: rows 2 member + {0, 1}, 16 bits at column group
#ifndef DDPGD_PTX_CUH
#define DDPGD_PTX_CUH

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define DDPGD_PTX(...) asm volatile(__VA_ARGS__)
#else
#define DDPGD_PTX(...) __trap()
#endif

// What this thread wrote is seen before what it writes after, and what it reads after is not older than what it read before.
// Cheaper than __threadfence(), which orders all threads' fences among themselves too.
__device__ __forceinline__ void fence_device() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 700
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
#else
    __threadfence();
#endif
}

// Hides how a value came about, so that a loop finds it in a register instead of computing it again.
template <class T>
__device__ __forceinline__ void keep_in_register(T& value) {
    if constexpr (sizeof(T) == 8) {
        asm volatile("" : "+l"(value));
    } else {
        asm volatile("" : "+r"(value));
    }
}

// Nearest with 10 mantissa bits, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(float value) {
    unsigned bits = 0;
    DDPGD_PTX("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

#define DDPGD_MMA(NAME, INSTRUCTION)                                                                               \
    __device__ __forceinline__ void NAME(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {          \
        DDPGD_PTX(INSTRUCTION " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                   \
                  : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                 \
                  : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                             \
    }

// d += a b over the 32 lanes of a warp, all of which must call.
DDPGD_MMA(mma_m16n8k8_tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
DDPGD_MMA(mma_m16n8k16_float16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
DDPGD_MMA(mma_m16n8k16_bfloat16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")

// Loads four matrices from shared memory, rows at multiples of 16 bytes; all lanes of a warp must call.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned (&registers)[4], const void* row) {
    [[maybe_unused]] const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (TRANSPOSED) {
        DDPGD_PTX("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                  : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                  : "r"(from)
                  : "memory");
    } else {
        DDPGD_PTX("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                  : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                  : "r"(from)
                  : "memory");
    }
}

// Begins to copy 4, 8 or 16 bytes, both addresses multiples of them; zeros, and no read, where not valid.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
    [[maybe_unused]] const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    [[maybe_unused]] const unsigned bytes = valid ? BYTES : 0;
    if constexpr (BYTES == 16) {
        DDPGD_PTX("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
    } else {
        DDPGD_PTX("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(BYTES), "r"(bytes) : "memory");
    }
}

// Closes the group of the copies that this thread has begun.
__device__ __forceinline__ void copy_async_commit() { DDPGD_PTX("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `Pending` of this thread's groups are under way; others see the copies after a barrier.
template <int Pending>
__device__ __forceinline__ void copy_async_wait() {
    DDPGD_PTX("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

#undef DDPGD_MMA
#undef DDPGD_PTX
#endif
