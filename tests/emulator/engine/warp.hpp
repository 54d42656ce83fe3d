// Warp operations: each lane posts its value and the last lane of the mask computes for all.
#pragma once

namespace emulator {

template <class T>
struct Exchange {
    T value;
    unsigned source;
    T result;
};

// A result that comes from a lane outside the mask is undefined: all ones, which is NaN.
template <class T>
T exchange(const char* name, unsigned mask, T value, unsigned source, Site site) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    Exchange<T> post{value, source, {}};
    const Execute execute = [](void** posts, unsigned mask) {
        for (unsigned lanes = mask; lanes; lanes &= lanes - 1) {
            auto& to = *static_cast<Exchange<T>*>(posts[__builtin_ctz(lanes)]);
            if (mask >> to.source & 1)
                to.result = static_cast<Exchange<T>*>(posts[to.source])->value;
            else
                memset(&to.result, 0xFF, sizeof(T));
        }
    };
    collective(name, execute, mask, &post, site);
    return post.result;
}

template <class T, class Fold>
T fold(const char* name, unsigned mask, T value, Fold, Site site) {
    const Execute execute = [](void** posts, unsigned mask) {
        T total = *static_cast<T*>(posts[__builtin_ctz(mask)]);
        for (unsigned lanes = mask & (mask - 1); lanes; lanes &= lanes - 1)
            total = Fold{}(total, *static_cast<T*>(posts[__builtin_ctz(lanes)]));
        for (unsigned lanes = mask; lanes; lanes &= lanes - 1) *static_cast<T*>(posts[__builtin_ctz(lanes)]) = total;
    };
    collective(name, execute, mask, &value, site);
    return value;
}

inline unsigned group_of_lane(int width) { return lane_number & ~unsigned(width - 1); }

}  // namespace emulator

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, Site site = Site::here()) {
    const unsigned from = emulator::group_of_lane(width) + (unsigned(source) & unsigned(width - 1));
    return emulator::exchange("__shfl_sync", mask, value, from, site);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int flipped, int width = 32, Site site = Site::here()) {
    const unsigned from = emulator::lane_number ^ unsigned(flipped);
    const bool inside = from < emulator::group_of_lane(width) + unsigned(width);
    return emulator::exchange("__shfl_xor_sync", mask, value, inside ? from : emulator::lane_number, site);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, Site site = Site::here()) {
    const bool inside = emulator::lane_number >= emulator::group_of_lane(width) + delta;
    return emulator::exchange("__shfl_up_sync", mask, value, emulator::lane_number - (inside ? delta : 0), site);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, Site site = Site::here()) {
    const bool inside = emulator::lane_number + delta < emulator::group_of_lane(width) + unsigned(width);
    return emulator::exchange("__shfl_down_sync", mask, value, emulator::lane_number + (inside ? delta : 0), site);
}

inline unsigned __ballot_sync(unsigned mask, int holds, Site site = Site::here()) {
    const unsigned own = holds ? 1u << emulator::lane_number : 0;
    return emulator::fold("__ballot_sync", mask, own, [](unsigned a, unsigned b) { return a | b; }, site);
}
inline int __any_sync(unsigned mask, int holds, Site site = Site::here()) {
    return emulator::fold("__any_sync", mask, int(holds != 0), [](int a, int b) { return a | b; }, site);
}
inline int __all_sync(unsigned mask, int holds, Site site = Site::here()) {
    return emulator::fold("__all_sync", mask, int(holds != 0), [](int a, int b) { return a & b; }, site);
}
inline unsigned __activemask() { return emulator::active_lanes(); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFF, Site site = Site::here()) {
    emulator::collective("__syncwarp", [](void**, unsigned) {}, mask, nullptr, site);
}

#define EMULATOR_REDUCE(type, name, value)                                                                      \
    inline type __reduce_##name##_sync(unsigned mask, type own, Site site = Site::here()) {                     \
        return emulator::fold("__reduce_" #name "_sync", mask, own, [](type a, type b) -> type { return value; }, site); \
    }
EMULATOR_REDUCE(int, add, int(unsigned(a) + unsigned(b)))
EMULATOR_REDUCE(int, min, min(a, b))
EMULATOR_REDUCE(int, max, max(a, b))
EMULATOR_REDUCE(unsigned, add, a + b)
EMULATOR_REDUCE(unsigned, min, min(a, b))
EMULATOR_REDUCE(unsigned, max, max(a, b))
EMULATOR_REDUCE(unsigned, and, a & b)
EMULATOR_REDUCE(unsigned, or, a | b)
EMULATOR_REDUCE(unsigned, xor, a ^ b)
