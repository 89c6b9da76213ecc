/* SPDX-License-Identifier: Apache-2.0 */
/* A C++ program that finds libemo's C++ binding where it was installed. */
#include <emo.hpp>

#include <cstdio>

int main() {
    try {
        const emo::runtime rt = emo::runtime::create();
        const std::int32_t experts[] = {9};
        const std::int32_t shared[] = {1};
        const emo::mask mask = emo::mask::create(rt, experts, shared, true);
        std::puts((~mask).size() == 1 ? "ok" : "the shared expert is not alone");
    } catch (const emo::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
