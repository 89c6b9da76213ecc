/* SPDX-License-Identifier: Apache-2.0 */
#include "libraries.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "exec.h"

#ifdef EMO_SIM

emo_status emo_cuda_libraries_open(emo_cuda_libraries *out, emo_error *err) {
    (void)err;
#define TAKE(name) out->name = &::name;
    EMO_CUDA_BLAS_FUNCTIONS(TAKE)
#undef TAKE
    return EMO_OK;
}

#else

#define TEXT(x) #x
#define SONAME(base, major) base ".so." TEXT(major)

/* The library beside the plug-in, or the one that the dynamic linker finds; `folder` receives where the plug-in lies.
 */
static void *open_library(const char *soname, char *folder, size_t room) {
    Dl_info info;
    folder[0] = '\0';
    if (dladdr((const void *)&emo_cuda_libraries_open, &info) != 0 && info.dli_fname != NULL) {
        const char *slash = strrchr(info.dli_fname, '/');
        char path[4096];
        if (slash != NULL &&
            snprintf(folder, room, "%.*s", (int)(slash - info.dli_fname), info.dli_fname) < (int)room &&
            snprintf(path, sizeof path, "%s/%s", folder, soname) < (int)sizeof path) {
            void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (library != NULL)
                return library;
        }
    }
    return dlopen(soname, RTLD_NOW | RTLD_LOCAL);
}

static emo_status resolve(void *library, const char *soname, const char *name, void *function, emo_error *err) {
    void *symbol = dlsym(library, name);
    if (symbol == NULL)
        return emo_cuda_fail(err, EMO_E_NOT_FOUND,
                             "%s has no function %s; a complete library of that version is needed", soname, name);
    memcpy(function, &symbol, sizeof symbol);
    return EMO_OK;
}

emo_status emo_cuda_libraries_open(emo_cuda_libraries *out, emo_error *err) {
    static const char soname[] = SONAME("libcublasLt", CUBLAS_VER_MAJOR);
    char folder[1024];
    void *library = open_library(soname, folder, sizeof folder);
    if (library == NULL) {
        const char *why = dlerror();
        return emo_cuda_fail(err, EMO_E_NOT_FOUND,
                             "cuBLASLt is missing: %s is neither in '%s' nor where the dynamic linker looks (%s)",
                             soname, folder, why != NULL ? why : "no reason given");
    }
#define TAKE(name) EMO_CUDA_TRY(resolve(library, soname, #name, &out->name, err));
    EMO_CUDA_BLAS_FUNCTIONS(TAKE)
#undef TAKE
    return EMO_OK;
}

#endif
