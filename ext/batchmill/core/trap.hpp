// Integer divisions that the processor refuses, by zero or of the lowest number by -1, fail a run and not the server.
//
// On x86-64 such a division raises SIGFPE, which ends the process; data of a request can do that to any model that divides
// integers. Inside of a run the signal's handler steps over the instruction, with 0 for its result, and the run is failed once it
// has ended. Anywhere else the signal does what it did before. Other processors do not trap.
#pragma once
#include <atomic>
#include <cstdint>

#if defined(__x86_64__)
#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <ucontext.h>
#endif

namespace batchmill {

// What the calling thread does in the runtime.
struct TrapState {
    bool running = false;   // a model
    bool loading = false;   // a model: constants that cannot be divided are the file's fault, and end what loads it
    bool trapped = false;   // since it began
};

inline TrapState& trap_state() {
    thread_local TrapState state;
    return state;
}

#if defined(__x86_64__)
inline uintptr_t trap_code_start = 0, trap_code_end = 0;  // the runtime's machine code
inline struct sigaction trap_before;

// Bytes of the div or idiv at `code`, 0 when it is neither; *bits: of its operand.
inline int division_bytes(const uint8_t* code, int* bits) {
    const uint8_t* at = code;
    bool wide = false;
    *bits = 32;
    for (; *at == 0x66 || *at == 0x67 || *at == 0xF2 || *at == 0xF3 || *at == 0x2E || *at == 0x36 || *at == 0x3E || *at == 0x26 ||
           *at == 0x64 || *at == 0x65; ++at)
        if (*at == 0x66) *bits = 16;
    if ((*at & 0xF0) == 0x40) wide = *at++ & 8;
    if (wide) *bits = 64;
    if (*at != 0xF6 && *at != 0xF7) return 0;
    if (*at++ == 0xF6) *bits = 8;
    uint8_t modrm = *at++, mode = modrm >> 6, rm = modrm & 7, operation = modrm >> 3 & 7;
    if (operation != 6 && operation != 7) return 0;
    if (mode != 3 && rm == 4) {
        uint8_t base = *at++ & 7;  // a scaled index
        if (mode == 0 && base == 5) at += 4;
    } else if (mode == 0 && rm == 5) {
        at += 4;
    }
    if (mode == 1) at += 1;
    if (mode == 2) at += 4;
    return static_cast<int>(at - code);
}

inline void on_trap(int number, siginfo_t* info, void* context) {
    auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    auto code = static_cast<uintptr_t>(registers[REG_RIP]);
    TrapState& state = trap_state();
    int bits = 0, size = 0;
    // A thread of a session's own pool has no state: it is known by where it is.
    if (info->si_code == FPE_INTDIV && !state.loading && (state.running || (code >= trap_code_start && code < trap_code_end)))
        size = division_bytes(reinterpret_cast<const uint8_t*>(code), &bits);
    if (!size) {
        sigaction(number, &trap_before, nullptr);  // returns to the division, which now ends as it would have
        if (info->si_code <= 0) raise(number);     // ... and what another process sent comes once more
        return;
    }
    state.trapped = true;
    greg_t keep = bits >= 32 ? 0 : ~greg_t{0xFFFF};
    registers[REG_RAX] &= keep;  // of 8 bits, quotient and remainder both
    if (bits > 8) registers[REG_RDX] &= keep;
    registers[REG_RIP] += size;
}

// Once, with an address inside of the runtime.
inline void catch_traps(const void* inside) {
    dl_iterate_phdr([](dl_phdr_info* library, size_t, void* wanted) {
        auto address = reinterpret_cast<uintptr_t>(wanted);
        for (int index = 0; index < library->dlpi_phnum; ++index) {
            const auto& part = library->dlpi_phdr[index];
            uintptr_t start = library->dlpi_addr + part.p_vaddr;
            if (part.p_type != PT_LOAD || !(part.p_flags & PF_X) || address < start || address >= start + part.p_memsz) continue;
            trap_code_start = start, trap_code_end = start + part.p_memsz;
            return 1;
        }
        return 0;
    }, const_cast<void*>(inside));
    struct sigaction action {};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    struct sigaction now;
    sigaction(SIGFPE, nullptr, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_trap) return;
    trap_before = now;
    sigaction(SIGFPE, &action, nullptr);
}
#else
inline void catch_traps(const void*) {}
#endif

}  // namespace batchmill
