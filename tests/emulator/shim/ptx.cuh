// Plain C++ twin of ddpgd/kernels/ptx.cuh: the same functions and fragment layouts, without inline PTX.
#ifndef DDPGD_PTX_CUH
#define DDPGD_PTX_CUH

namespace emulator_ptx {

struct Product {
    float* d;
    const unsigned *a, *b;
};

inline float from_tf32(unsigned bits) { return emulator_bits<float>(bits & 0xFFFFE000); }
inline float from_float16(unsigned bits) { return float(emulator_bits<_Float16>((unsigned short)(bits))); }
inline float from_bfloat16(unsigned bits) { return emulator_bits<float>(bits << 16); }

// Registers hold one 32-bit or two 16-bit elements, the lower k in the lower half. With group = lane / 4 and
// member = lane % 4, register r of A is in row group + 8 (r % 2), and the k of its first element is
// member * PER + 4 * PER * (r / 2); register r of B is in column group, its first k is member * PER + 4 * PER * r;
// d[i] is in row group + 8 (i / 2), column 2 member + i % 2.
template <int PER, float (*Convert)(unsigned)>
void multiply(void** posts, unsigned) {
    constexpr int K = 8 * PER;
    float a[16][K], b[K][8], d[16][8];
    const auto element = [](unsigned word, int e) { return Convert(PER == 1 ? word : word >> 16 * e & 0xFFFF); };
    for (int lane = 0; lane < 32; ++lane) {
        const auto& post = *static_cast<Product*>(posts[lane]);
        const int group = lane / 4, member = lane % 4;
        for (int e = 0; e < PER; ++e) {
            for (int r = 0; r < 4; ++r)
                a[group + 8 * (r % 2)][(member + 4 * (r / 2)) * PER + e] = element(post.a[r], e);
            for (int r = 0; r < 2; ++r) b[(member + 4 * r) * PER + e][group] = element(post.b[r], e);
        }
        for (int i = 0; i < 4; ++i) d[group + 8 * (i / 2)][2 * member + i % 2] = post.d[i];
    }
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < K; ++k)
            for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < 32; ++lane) {
        const auto& post = *static_cast<Product*>(posts[lane]);
        for (int i = 0; i < 4; ++i) post.d[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
}

inline void whole_warp(const char* name, emulator::Execute execute, void* post, Site site) {
    if (blockDim.x * blockDim.y * blockDim.z < (emulator::thread_number / 32 + 1) * 32)
        emulator::fail(site, "%s in a warp of fewer than 32 threads", name);
    emulator::collective(name, execute, 0xFFFFFFFF, post, site);
}

inline void warp_multiply(const char* name, emulator::Execute execute, float* d, const unsigned* a, const unsigned* b,
                          Site site) {
    Product post{d, a, b};
    whole_warp(name, execute, &post, site);
}

// What a lane of a load names and gets.
struct Row {
    unsigned* registers;
    const void* values;
};

// Of register r: matrix r, whose row i lane 8 r + i names.
template <bool TRANSPOSED>
void load_matrices(void** posts, unsigned) {
    for (int r = 0; r < 4; ++r) {
        unsigned short matrix[8][8];
        for (int i = 0; i < 8; ++i) memcpy(matrix[i], static_cast<Row*>(posts[8 * r + i])->values, 16);
        for (int lane = 0; lane < 32; ++lane) {
            const int group = lane / 4, first = lane % 4 * 2;
            const unsigned low = TRANSPOSED ? matrix[first][group] : matrix[group][first];
            const unsigned high = TRANSPOSED ? matrix[first + 1][group] : matrix[group][first + 1];
            static_cast<Row*>(posts[lane])->registers[r] = low | high << 16;
        }
    }
}

struct Copy {
    void* to;
    const void* from;
    size_t bytes;
    bool valid;
};

// What one thread has begun to copy: groups that are committed, and the open one last.
struct Copies {
    uint64_t serial;
    std::vector<std::vector<Copy>> groups;
};

inline std::vector<std::vector<Copy>>& own_copies() {
    static std::deque<Copies> copies;
    if (copies.size() <= emulator::fiber_number) copies.resize(emulator::fiber_number + 1);
    Copies& own = copies[emulator::fiber_number];
    if (own.serial != emulator::thread_serial) own = {emulator::thread_serial, {{}}};
    return own.groups;
}

}  // namespace emulator_ptx

inline void fence_device() { __threadfence(); }
template <class T>
inline void keep_in_register(T&) {}

inline unsigned to_tf32(float value) {
    const unsigned bits = emulator_bits<unsigned>(value);
    if (value != value) return 0x7FFFFFFF;
    return isfinite(value) ? (bits + 0x1000) & 0xFFFFE000 : bits;
}

inline void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Site site = Site::here()) {
    using namespace emulator_ptx;
    warp_multiply("mma_m16n8k8_tf32", multiply<1, from_tf32>, d, a, b, site);
}
inline void mma_m16n8k16_float16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                 Site site = Site::here()) {
    using namespace emulator_ptx;
    warp_multiply("mma_m16n8k16_float16", multiply<2, from_float16>, d, a, b, site);
}
inline void mma_m16n8k16_bfloat16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                  Site site = Site::here()) {
    using namespace emulator_ptx;
    warp_multiply("mma_m16n8k16_bfloat16", multiply<2, from_bfloat16>, d, a, b, site);
}

template <bool TRANSPOSED>
inline void load_matrices(unsigned (&registers)[4], const void* row, Site site = Site::here()) {
    if (reinterpret_cast<uintptr_t>(row) % 16)
        emulator::fail(site, "load_matrices of an address that is no multiple of 16");
    emulator_ptx::Row post{registers, row};
    emulator_ptx::whole_warp("load_matrices", emulator_ptx::load_matrices<TRANSPOSED>, &post, site);
}
template <int BYTES>
inline void copy_async(void* shared, const void* global, bool valid, Site site = Site::here()) {
    if (reinterpret_cast<uintptr_t>(shared) % BYTES || (valid && reinterpret_cast<uintptr_t>(global) % BYTES))
        emulator::fail(site, "copy_async of addresses that are not multiples of %d", BYTES);
    emulator_ptx::own_copies().back().push_back({shared, global, BYTES, valid});
}
inline void copy_async_commit() { emulator_ptx::own_copies().emplace_back(); }

// Nothing arrives before it is waited for, so that a wait for too few groups shows.
template <int Pending>
inline void copy_async_wait() {
    auto& groups = emulator_ptx::own_copies();
    const size_t open_and_pending = size_t(Pending) + 1;
    if (groups.size() <= open_and_pending) return;
    const auto last = groups.end() - open_and_pending;
    for (auto group = groups.begin(); group != last; ++group)
        for (const auto& copy : *group) {
            if (copy.valid)
                memcpy(copy.to, copy.from, copy.bytes);
            else
                memset(copy.to, 0, copy.bytes);
        }
    groups.erase(groups.begin(), last);
}

#endif
