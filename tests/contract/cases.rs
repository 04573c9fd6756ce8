//! The table of cases, in the order of the design's measurements: logins, tokens, PKI, server.

use std::future::Future;
use std::pin::Pin;

use crate::bench::{Ctx, Outcome};
use crate::{agent, bounds, documents, init, login, pki, quota, renew, sign, sys, token};

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a Ctx) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

macro_rules! cases {
    ($($module:ident: $($case:ident)+;)+) => {
        &[$($(Case {
            name: concat!(stringify!($module), "::", stringify!($case)),
            run: |ctx| Box::pin($module::$case(ctx)),
        },)+)+]
    };
}

pub(crate) const CASES: &[Case] = cases! {
    login:
        first_without_nonce_is_given_one
        same_nonce_again_is_not_echoed
        missing_nonce_later_is_refused
        wrong_nonce_later_is_refused
        empty_nonce_on_an_entry_changes_nothing
        empty_nonce_first_ends_reauthentication
        older_pending_time_is_refused
        wrong_nonce_with_newer_pending_time_is_refused
        migration_with_newer_pending_time_keeps_the_old_nonce
        migration_with_the_same_pending_time_is_refused
        reserved_nonce_bricks_the_entry
        long_nonce_makes_no_entry
        disallowed_reauthentication_is_cleared_by_deleting_the_entry
        disallow_and_migration_exclude_each_other
        of_eight_first_logins_one_nonce_stays
        unparsable_pending_time_poisons_the_entry
        nonce_is_shared_by_all_roles
        role_defaults_to_the_image
        unknown_fields_are_a_warning
        metadata_follows_the_configuration
        one_entity_per_instance
        access_list_shows_its_entries
        policies_and_lease_come_from_the_role
        batch_role_gives_a_batch_token;
    bounds:
        role_is_missing
        role_of_another_type
        image_differs
        image_of_the_document_does_not_count
        account_differs
        instance_id_differs
        subnet_differs
        vpc_differs
        region_differs
        profile_differs
        profile_is_missing
        profile_prefix_matches
        address_is_out_of_range
        instance_is_stopped
        instance_is_terminated
        instance_is_unknown
        account_is_not_vaults
        ec2_throttles
        ec2_denies
        ec2_is_gone
        role_needs_a_bound
        role_ttl_above_its_maximum;
    documents:
        identity_and_signature_are_accepted
        foreign_signature_is_refused
        newline_breaks_the_signature
        both_forms_are_refused
        no_form_is_refused
        half_a_form_is_refused
        extras_beside_pkcs7_are_ignored
        line_breaks_do_not_matter
        broken_base64_is_refused
        truncated_message_is_refused
        unregistered_signer_is_refused
        altered_content_is_refused
        bad_signature_is_refused
        identity_must_be_base64
        good_signature_shows_without_an_entry
        body_is_not_json
        string_is_too_long
        get_is_not_a_login
        unknown_mount_wants_a_token
        certificate_kind_is_checked;
    token:
        lookup_self_of_a_node
        lookup_self_of_root
        invalid_token
        no_token
        bearer_header_works
        policy_refuses
        revoked_by_itself
        revoked_with_its_parent
        expired
        uses_run_out
        renewal_is_not_additive
        renewal_above_the_maximum_is_cut
        bad_increment
        not_renewable
        batch_is_not_renewed_or_revoked
        period_ignores_the_increment
        period_ends_at_the_explicit_maximum
        accessor_looks_up
        put_and_post_are_alike
        unknown_path_and_operation;
    renew:
        by_the_node
        shrinks_to_the_maximum
        instance_stopped
        entry_deleted
        role_deleted
        ec2_denied
        ec2_throttled
        follows_the_role_of_the_first_login
        follows_a_changed_role;
    sign:
        has_the_fields
        names_come_from_the_csr
        names_come_from_the_request
        own_name_only
        foreign_san
        organization_of_the_csr_is_dropped
        colon_needs_hostnames_off
        ttl_is_cut_with_a_warning
        not_after_is_not_cut
        not_after_and_ttl
        beyond_the_authority
        truncated_at_the_authority
        odd_ttls
        ip_not_allowed
        uri_not_allowed
        uri_allowed
        invalid_ip
        wrong_key_type
        larger_curve_passes
        csr_is_empty
        csr_is_nonsense
        csr_signature_is_wrong
        no_common_name
        unknown_role
        no_issuer_yet
        root_can_be_left_out
        usages_follow_the_role
        unchecked_names_are_any_names
        named_issuer_signs;
    pki:
        raw_authority
        raw_chain
        json_chain
        issuer_by_name
        nothing_to_serve_yet
        new_issuer_changes_nothing_until_default
        certificate_by_serial
        unknown_serial
        revoke_twice
        revoke_unknown
        no_store_keeps_nothing
        issuers_are_public
        role_reads_back
        sign_needs_a_token
        get_on_sign;
    sys:
        health_active
        health_can_be_recoded
        seal_status_active
        leader_without_ha
        init_is_told
        mount_twice
        mount_of_an_unknown_kind
        tune_shows
        auth_mount_free
        unknown_route
        policy_reads_back
        policy_must_parse
        plain_http_on_tls;
    init:
        empty_server
        wrong_shares
        recovery_keys_do_not_apply
        second_time
        unseal_errors
        wrong_share_shows_at_the_last
        same_share_twice
        sealed_server
        tokens_survive_a_seal;
    quota:
        refuses_without_a_hint
        tells_when_headers_are_on
        blocks_for_the_interval
        lease_count_is_for_enterprises;
    agent:
        worker_gets_its_certificates
        controller_gets_its_certificates
        worker_is_no_controller
        worker_role_wants_its_profile
        etcd_and_front_proxy_have_their_own_roots
        shipped_lease
        masters_cannot_be_asked_for;
};
