/* SPDX-License-Identifier: Apache-2.0 */
/* A shared library that is no plug-in. */
extern const int something_else;
__attribute__((visibility("default"))) const int something_else = 1;
