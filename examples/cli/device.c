/* SPDX-License-Identifier: Apache-2.0 */
/* --device and --backend: loading a plug-in and moving models to its devices. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "device.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int on_cpu(const char *device) { return device == NULL || strcmp(device, "cpu") == 0; }

/* libemo_NAME.so beside the program or in ../lib, where the device is NAME or NAME:2; NULL: neither is there. */
static char *plugin_nearby(const char *device) {
    static const char *const folders[] = {"", "../lib/"};
    char program[4096], path[4300];
    size_t name = strcspn(device, ":");
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (length <= 0 || name > 32)
        return NULL;
    program[length] = '\0';
    char *slash = strrchr(program, '/');
    if (slash == NULL)
        return NULL;
    slash[1] = '\0';
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s%slibemo_%.*s.so", program, folders[i], (int)name, device);
        if (path_exists(path))
            return realpath(path, NULL);
    }
    return NULL;
}

emo_status cli_load_backend(cli *c) {
    const char *backend = c->common.backend, *device = c->common.device;
    if (backend == NULL && on_cpu(device))
        return EMO_OK;
    char *path = c->plugin = backend != NULL ? realpath(backend, NULL) : plugin_nearby(device);
    if (path == NULL && backend != NULL)
        return cli_fail(c, EMO_E_NOT_FOUND, "--backend %s: there is no such file", backend);
    if (path == NULL)
        return cli_fail(
            c, EMO_E_NOT_FOUND,
            "--device %s needs its plug-in: libemo_%.*s.so is not beside the program, name it with --backend", device,
            (int)strcspn(device, ":"), device);
    emo_status status = emo_runtime_load_backend(c->rt, path, &c->err);
    if (status == EMO_E_NOT_FOUND && cli_given(c, "dry-run")) { /* a plan needs no device */
        const emo_error none = EMO_ERROR_INIT;
        c->err = none;
        return EMO_OK;
    }
    return status;
}

emo_status cli_find_libraries(cli *c, char **out) {
    const char *folder = c->common.libraries;
    *out = folder != NULL ? realpath(folder, NULL) : NULL;
    if (folder != NULL && *out == NULL)
        return cli_fail(c, EMO_E_NOT_FOUND, "--cuda-libraries %s: there is no such folder", folder);
    return EMO_OK;
}

emo_status cli_place_model(cli *c, emo_model *model) {
    if (on_cpu(c->common.device))
        return EMO_OK;
    return emo_model_to_device(model, c->common.device, &c->err);
}
