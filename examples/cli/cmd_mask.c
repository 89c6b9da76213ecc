/* SPDX-License-Identifier: Apache-2.0 */
/* emo mask: set algebra on mask files. */
#include "cli.h"

#include <string.h>

static const command_text text = {"emo mask", "union|intersect|subtract A B --out FILE | complement A --out FILE",
                                  "Combines expert masks layer by layer; shared experts stay in every mask.\n\n"
                                  "  union A B       the experts of A or B\n"
                                  "  intersect A B   the experts of both\n"
                                  "  subtract A B    the experts of A that are not in B\n"
                                  "  complement A    the routed experts that are not in A",
                                  NULL, 3};

typedef emo_status (*binary_operation)(const emo_mask *, const emo_mask *, emo_mask **, emo_error *);

int cmd_mask(int argc, char **argv) {
    const char *out = NULL;
    option table[] = {{"out", OPTION_STRING, &out, "FILE", "the mask to write", NULL, 0, 0, 1, 0}, OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    emo_mask *a = NULL, *b = NULL, *result = NULL;
    const char **words = c.operands.items;
    const char *name = c.operands.count > 0 ? words[0] : "";
    int complement = strcmp(name, "complement") == 0;
    binary_operation operation = strcmp(name, "union") == 0       ? emo_mask_union
                                 : strcmp(name, "intersect") == 0 ? emo_mask_intersect
                                 : strcmp(name, "subtract") == 0  ? emo_mask_subtract
                                                                  : NULL;
    if (!complement && operation == NULL) {
        const char *const known[] = {"union", "intersect", "subtract", "complement", NULL};
        const char *near = name[0] == '\0' ? NULL : nearest_word(name, known);
        if (name[0] == '\0')
            cli_usage(&c, "say what to do: union, intersect, subtract or complement.");
        else if (near != NULL)
            cli_usage(&c, "there is no operation '%s'; did you mean '%s'?", name, near);
        else
            cli_usage(&c, "there is no operation '%s', only union, intersect, subtract and complement.", name);
        goto done;
    }
    if (c.operands.count != (complement ? 2u : 3u)) {
        cli_usage(&c, "%s takes %s.", name, complement ? "one mask file" : "two mask files");
        goto done;
    }
    EMO_TRY(emo_mask_load(c.rt, words[1], &a, &c.err));
    if (complement) {
        EMO_TRY(emo_mask_complement(a, &result, &c.err));
    } else {
        EMO_TRY(emo_mask_load(c.rt, words[2], &b, &c.err));
        EMO_TRY(operation(a, b, &result, &c.err));
    }
    EMO_TRY(emo_mask_save(result, out, &c.err));
    if (c.common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "mask", out);
        json_mask_layers(&json, result);
        json_close(&json);
    } else if (!c.common.quiet) {
        char words_of[128];
        describe_mask(result, words_of, sizeof(words_of));
        printf("%s: %s\n", out, words_of);
    }
done:
    emo_mask_release(a);
    emo_mask_release(b);
    emo_mask_release(result);
    return cli_end(&c);
}
