/* SPDX-License-Identifier: Apache-2.0 */
#include "libraries.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "exec.h"

#define TEXT(x) #x
#define SONAME(base, major) base ".so." TEXT(major)

#ifdef EMO_SIM
#define OPEN(path) cudasim::library_open(path)
#define WHY_NOT() cudasim::library_error()
#define FIND(library, name) cudasim::library_symbol(library, name)
#else
#define OPEN(path) dlopen(path, RTLD_NOW | RTLD_LOCAL)
#define WHY_NOT() dlerror()
#define FIND(library, name) dlsym(library, name)
#endif

static void *open_in(const char *folder, const char *soname) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", folder, soname);
    return length > 0 && (size_t)length < sizeof path ? OPEN(path) : NULL;
}

/* Where the plug-in lies; "" when that cannot be told. */
static void own_folder(char *folder, size_t room) {
    Dl_info info;
    folder[0] = '\0';
    if (dladdr((const void *)&emo_cuda_libraries_open, &info) == 0 || info.dli_fname == NULL)
        return;
    const char *slash = strrchr(info.dli_fname, '/');
    if (slash == NULL || (size_t)(slash - info.dli_fname) >= room)
        return;
    memcpy(folder, info.dli_fname, (size_t)(slash - info.dli_fname));
    folder[slash - info.dli_fname] = '\0';
}

/* Opens the library and finds all of its functions, or says in `why` what is missing and where it was looked for. */
static int open_blas(const char *named, emo_cuda_libraries *out, char *why, size_t room) {
    static const char soname[] = SONAME("libcublasLt", CUBLAS_VER_MAJOR);
    char folder[1024];
    if (named == NULL)
        own_folder(folder, sizeof folder);
    void *library = named != NULL ? open_in(named, soname) : folder[0] != '\0' ? open_in(folder, soname) : NULL;
    if (library == NULL && named == NULL)
        library = OPEN(soname);
    if (library == NULL) {
        const char *reason = WHY_NOT();
        if (reason == NULL)
            reason = "no reason given";
        (void)(named != NULL
                   ? snprintf(why, room, "cuBLASLt is missing: %s cannot be opened in '%s' (%s)", soname, named, reason)
                   : snprintf(why, room,
                              "cuBLASLt is missing: %s is neither in '%s' nor where the dynamic linker looks (%s)",
                              soname, folder, reason));
        return 0;
    }
#define TAKE(name)                                                                                                     \
    if (void *name##_found = FIND(library, #name)) {                                                                   \
        memcpy((void *)&out->name, &name##_found, sizeof name##_found);                                                \
    } else {                                                                                                           \
        (void)snprintf(why, room, "%s has no function %s; a complete library of that version is needed", soname,       \
                       #name);                                                                                         \
        return 0;                                                                                                      \
    }
    EMO_CUDA_BLAS_FUNCTIONS(TAKE)
#undef TAKE
    return 1;
}

emo_status emo_cuda_libraries_open(const emo_backend_services *services, emo_cuda_libraries *out, emo_error *err) {
    char why[2048], text[2304];
    memset(out, 0, sizeof *out);
    out->blas = open_blas(services->libraries, out, why, sizeof why);
    if (out->blas)
        return EMO_OK;
    if (services->libraries != NULL)
        return emo_cuda_fail(err, EMO_E_NOT_FOUND, "%s", why);
    (void)snprintf(text, sizeof text, "%s; matrix products run on the library's own kernels, which are slower", why);
    services->log(services->ctx, EMO_LOG_WARNING, text);
    return EMO_OK;
}
