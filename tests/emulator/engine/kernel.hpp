// How a unit tells its kernels to Python: name, parameter types, limit of threads, and a call over untyped arguments.
#pragma once

#include <string>

namespace emulator {

template <class T>
std::string type_name() {
    using Plain = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<Plain>)
        return type_name<std::remove_pointer_t<Plain>>() + "*";
    else if constexpr (std::is_void_v<Plain>)
        return "void";
    else if constexpr (requires { Plain::EMULATOR_NAME; })
        return Plain::EMULATOR_NAME;
    else if constexpr (std::is_same_v<Plain, bool>)
        return "bool";
    else if constexpr (std::is_floating_point_v<Plain>)
        return "float" + std::to_string(8 * sizeof(Plain));
    else if constexpr (std::is_integral_v<Plain>)
        return (std::is_signed_v<Plain> ? "int" : "uint") + std::to_string(8 * sizeof(Plain));
    else
        return "struct" + std::to_string(sizeof(Plain));
}

struct Kernel {
    const char* name;
    Call call;
    const char* types;
    int max_threads;
};

constexpr int bounds(int max_threads = 1024, int = 0, int = 0) { return max_threads; }

template <auto Function>
struct Entry;

template <class... A, void (*Function)(A...)>
struct Entry<Function> {
    template <size_t... I>
    static void unpack([[maybe_unused]] void** arguments, std::index_sequence<I...>) {
        Function(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
    }
    static void call(void** arguments) { unpack(arguments, std::index_sequence_for<A...>{}); }

    static const char* types() {
        static const std::string text = ((type_name<A>() + " ") + ... + std::string());
        return text.c_str();
    }
};

template <auto Function>
Kernel kernel(const char* name, int max_threads) {
    return {name, Entry<Function>::call, Entry<Function>::types(), max_threads};
}

}  // namespace emulator

// The arrays that `__shared__` made and a thread has come by: the scheduler fills them before each block.
extern "C" {
__attribute__((visibility("default"))) emulator::Shared emulator_shared = {};
}

namespace emulator {

inline bool share(void* start, size_t bytes) {
    if (emulator_shared.count == std::size(emulator_shared.arrays)) fail({}, "too many shared arrays in one unit");
    emulator_shared.arrays[emulator_shared.count++] = {static_cast<char*>(start), bytes};
    memset(start, 0xFF, bytes);
    return true;
}

}  // namespace emulator
