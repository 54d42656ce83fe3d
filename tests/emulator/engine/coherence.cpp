// Views of device memory by pages that are unwritable until a block writes there.
#include "coherence.hpp"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <mutex>

namespace emulator {

static std::mutex registering;  // other threads of the process allocate during a launch
static std::map<uintptr_t, size_t> regions;
static std::map<uintptr_t, size_t> guarded;  // those of the present launch
static std::map<uintptr_t, Page> published;  // where it may differ from what the running block sees
static std::vector<std::pair<unsigned char*, unsigned char>> unpublished;

static unsigned char* memory(uintptr_t address) { return reinterpret_cast<unsigned char*>(address); }
static uintptr_t page_of(uintptr_t address) { return address / PAGE_BYTES * PAGE_BYTES; }

static void set_writable(uintptr_t page, bool writable) {
    mprotect(memory(page), PAGE_BYTES, writable ? PROT_READ | PROT_WRITE : PROT_READ);
}

static std::shared_ptr<const Page> copy_of(const unsigned char* bytes) {
    auto made = std::make_shared<Page>();
    memcpy(made->data(), bytes, PAGE_BYTES);
    return made;
}

static bool is_guarded(uintptr_t address) {
    const auto after = guarded.upper_bound(address);
    if (after == guarded.begin()) return false;
    const auto& [start, bytes] = *std::prev(after);
    return address < start + bytes;
}

void add_region(char* start, size_t bytes) {
    const std::lock_guard lock(registering);
    regions[reinterpret_cast<uintptr_t>(start)] = bytes;
}

void remove_region(char* start) {
    const std::lock_guard lock(registering);
    regions.erase(reinterpret_cast<uintptr_t>(start));
}

void protect_memory() {
    const std::lock_guard lock(registering);
    guarded = regions;
    for (const auto& [start, bytes] : guarded)
        if (bytes) mprotect(memory(start), bytes, PROT_READ);
}

void unprotect_memory() {
    const std::lock_guard lock(registering);
    std::erase_if(guarded, [](const auto& region) { return !regions.count(region.first); });  // freed meanwhile
    for (const auto& [start, bytes] : guarded)
        if (bytes) mprotect(memory(start), bytes, PROT_READ | PROT_WRITE);
    for (const auto& [page, bytes] : published)
        if (is_guarded(page)) memcpy(memory(page), bytes.data(), PAGE_BYTES);
    for (const auto& [to, byte] : unpublished)
        if (is_guarded(reinterpret_cast<uintptr_t>(to))) *to = byte;
    published.clear();
    unpublished.clear();
    guarded.clear();
}

// The running block sees the published page again, and may not write there.
static void show_published(uintptr_t page) {
    memcpy(memory(page), published.at(page).data(), PAGE_BYTES);
    set_writable(page, false);
}

void switch_out(View& view) {
    for (auto& [page, viewed] : view) {
        viewed.now = copy_of(memory(page));
        show_published(page);
    }
}

void switch_in(const View& view) {
    for (const auto& [page, viewed] : view) {
        set_writable(page, true);
        memcpy(memory(page), viewed.now->data(), PAGE_BYTES);
    }
}

void publish(View& own, const std::vector<View*>& others) {
    for (auto& [page, viewed] : own) {
        Page& to = published.at(page);
        const unsigned char* now = memory(page);
        if (memcmp(now, viewed.base->data(), PAGE_BYTES) != 0) {
            const std::shared_ptr<const Page> before = copy_of(to.data());
            for (View* other : others)
                if (other != &own) other->try_emplace(page, Viewed{before, before});
            for (size_t i = 0; i < PAGE_BYTES; ++i)
                if (now[i] != (*viewed.base)[i]) to[i] = now[i];
        }
        show_published(page);
    }
    own.clear();
}

void leave_unpublished(View& view) {
    for (auto& [page, viewed] : view) {
        for (size_t i = 0; i < PAGE_BYTES; ++i)
            if (memory(page)[i] != (*viewed.base)[i]) unpublished.emplace_back(memory(page) + i, memory(page)[i]);
        show_published(page);
    }
    view.clear();
}

bool admit_write(View& view, uintptr_t address) {
    const uintptr_t page = page_of(address);
    if (!is_guarded(address) || view.count(page)) return false;
    const auto [found, added] = published.try_emplace(page);
    if (added) memcpy(found->second.data(), memory(page), PAGE_BYTES);
    view[page].base = copy_of(memory(page));
    set_writable(page, true);
    return true;
}

// For each page that holds some of the bytes: its part of them.
template <class Work>
static void for_pages(uintptr_t address, size_t bytes, Work work) {
    for (const uintptr_t end = address + bytes; address < end;) {
        const uintptr_t part_end = std::min(end, page_of(address) + PAGE_BYTES);
        if (is_guarded(address)) work(page_of(address), address, part_end - address);
        address = part_end;
    }
}

void begin_coherent(View& view, uintptr_t address, size_t bytes) {
    for_pages(address, bytes, [&](uintptr_t page, uintptr_t from, size_t count) {
        const auto viewed = view.find(page);
        if (viewed == view.end()) return set_writable(page, true);
        unsigned char* to = published.at(page).data() + (from - page);
        const unsigned char* base = viewed->second.base->data() + (from - page);
        for (size_t i = 0; i < count; ++i)
            if (memory(from)[i] != base[i]) to[i] = memory(from)[i];
        memcpy(memory(from), to, count);
    });
}

void end_coherent(View& view, uintptr_t address, size_t bytes) {
    for_pages(address, bytes, [&](uintptr_t page, uintptr_t from, size_t count) {
        if (const auto to = published.find(page); to != published.end())
            memcpy(to->second.data() + (from - page), memory(from), count);
        const auto viewed = view.find(page);
        if (viewed == view.end()) return set_writable(page, false);
        auto base = std::make_shared<Page>(*viewed->second.base);
        memcpy(base->data() + (from - page), memory(from), count);
        viewed->second.base = base;
    });
}

}  // namespace emulator
