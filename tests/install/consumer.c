/* SPDX-License-Identifier: Apache-2.0 */
/* A program that finds libemo where it was installed; built as C11 and as C++17, against both libraries. */
#include <stdio.h>
#include <string.h>

#include <emo/emo.h>

int main(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    if (strcmp(emo_version_string(), EMO_VERSION_STRING) != 0) {
        fprintf(stderr, "headers %s, library %s\n", EMO_VERSION_STRING, emo_version_string());
        return 1;
    }
    if (emo_runtime_create(NULL, &rt, &err) != EMO_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    emo_runtime_release(rt);
    puts("ok");
    return 0;
}
