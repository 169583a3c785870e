// The data plane's threads, under the names that top -H, perf and gdb show.
#pragma once
#include <pthread.h>

#include <cstdio>

namespace batchmill {

// number: behind the name; -1: none. False: there is no room for another thread.
inline bool start_thread(pthread_t* thread, void* (*body)(void*), void* argument, const char* name, int number) {
    char text[16];  // the kernel's limit
    if (pthread_create(thread, nullptr, body, argument)) return false;
    if (number < 0) snprintf(text, sizeof text, "%s", name);
    else snprintf(text, sizeof text, "%s-%d", name, number);
    pthread_setname_np(*thread, text);
    return true;
}

}  // namespace batchmill
